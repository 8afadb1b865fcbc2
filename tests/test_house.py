"""What must agree between the project's files: template, images, stack file, public names."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

import faasbase
from deploy.brokers.__main__ import PLACES, STREAMS, TOPICS, VARIABLES
from deploy.images import standins
from faasbase.durations import parse_duration
from tests.local_up import local_module
from tests.staging import BASE, FUNCTIONS, ROOT, TEMPLATE

STACK: dict[str, Any] = yaml.safe_load((ROOT / "stack.yml").read_text())["functions"]
SAMPLES = sorted(path.name for path in FUNCTIONS.iterdir() if path.is_dir())
PINNED = re.compile(r"[a-z0-9.-]+==\S+ +(; [^-]+?)?( *--hash=sha256:[0-9a-f]{64})+")
SCALING = re.compile(r"com\.openfaas\.scale\.")


def _environment(dockerfile: str) -> dict[str, str]:
    """Return what the last ENV instruction sets."""
    block = re.findall(r"^ENV ((?:.*\\\n)*.*)$", dockerfile, re.MULTILINE)[-1]
    pairs = re.findall(r'(\w+)=("[^"]*"|\S+)', block)
    return {name: value.strip('"') for name, value in pairs}


def test_fprocess_of_the_template_is_the_images() -> None:
    """faas-cli sends the template's fprocess at deploy, and it wins over the image's: they must be one."""
    template = yaml.safe_load((TEMPLATE / "template.yml").read_text())
    dockerfile = (TEMPLATE / "Dockerfile").read_text()
    assert template["language"] == "python-fastapi"
    assert template["fprocess"] == _environment(dockerfile)["fprocess"] == "python index.py"
    assert {option["name"] for option in template["build_options"]} >= {"dev", "libpq"}
    assert template["welcome_message"].strip()


def test_window_and_drain_of_the_image_end_before_the_pod_is_killed() -> None:
    """OpenFaaS CE gives a pod 30 s between SIGTERM and SIGKILL."""
    environment = _environment((TEMPLATE / "Dockerfile").read_text())
    window, drain = (parse_duration(environment[name]) for name in ("healthcheck_interval", "write_timeout"))
    assert window + drain < 30
    assert parse_duration(environment["exec_timeout"]) <= drain


def test_base_image_is_the_base_stage_of_the_template() -> None:
    """Functions built on the shared image and without it get the same base."""
    stage = re.compile(r"^FROM \$\{PYTHON_IMAGE\} AS base\n(?:(?!FROM ).*\n?)*", re.MULTILINE)
    found = [stage.search((folder / "Dockerfile").read_text()) for folder in (ROOT, TEMPLATE)]
    first, second = (match[0].strip() for match in found if match)
    assert first == second
    defaults = [
        re.findall(r"^ARG (?:PYTHON|DEBIAN)\w+=.*", (folder / "Dockerfile").read_text(), re.MULTILINE)
        for folder in (ROOT, TEMPLATE)
    ]
    assert defaults[0] == defaults[1]
    assert len(defaults[0]) == 3


def test_official_images_are_those_of_the_dockerfile() -> None:
    """Where they can be pulled, what is tested here is what users get."""
    given = dict(re.findall(r"^ARG (\w+)=(\S+)$", (TEMPLATE / "Dockerfile").read_text(), re.MULTILINE))
    python = re.sub(r"\$\{(\w+)\}", lambda match: given[match[1]], given["PYTHON_IMAGE"])
    assert (python, given["WATCHDOG_IMAGE"]) == (standins.PYTHON_IMAGE, standins.WATCHDOG_IMAGE)


def test_images_run_as_a_user_without_rights_and_depend_on_their_tests() -> None:
    """The shipped stage copies from the test stage: BuildKit leaves a stage out that nothing needs."""
    shipped = (TEMPLATE / "Dockerfile").read_text().split(" AS ship\n")[1]
    assert "COPY --from=test" in shipped
    assert re.search(r"^USER \d+:\d+$", shipped, re.MULTILINE)


def test_template_hands_out_a_handler_and_nothing_that_comes_back() -> None:
    """What stands in function/ reappears in every build, even where the user has deleted it."""
    tracked = subprocess.run(
        ["git", "ls-files", "template/python-fastapi/function"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert {Path(name).name for name in tracked} == {"__init__.py", "handler.py", "requirements.txt"}


def test_every_sample_is_deployed_and_explained() -> None:
    """A folder under functions/ is in the stack file, with a README and a handler of under 60 lines."""
    assert sorted(STACK) == SAMPLES
    for name in SAMPLES:
        folder = FUNCTIONS / name
        assert STACK[name]["handler"] == f"./functions/{name}"
        assert (folder / "README.md").exists()
        assert (folder / "requirements.txt").exists()
        assert len((folder / "handler.py").read_text().splitlines()) < 60


@pytest.mark.parametrize("name", sorted(STACK))
def test_stack_file_is_taken_by_openfaas_ce(name: str) -> None:
    """CE refuses scaling labels; registry and tag come from the environment; the pod's end is long enough."""
    function = STACK[name]
    assert not SCALING.search(yaml.safe_dump(function))
    assert re.fullmatch(rf"\$\{{REGISTRY:-[^}}]+\}}/{name}:\$\{{TAG:-[^}}]+\}}", function["image"])
    assert {"cpu", "memory"} <= set(function["limits"])
    assert function["readonly_root_filesystem"] is True
    settings = function["environment"]
    assert parse_duration(settings["healthcheck_interval"]) + parse_duration(settings["write_timeout"]) < 30


@pytest.mark.parametrize("environ", [{}, PLACES], ids=["as it is", "with brokers"])
def test_stack_file_can_be_read_once_its_variables_are_in_it(
    environ: Mapping[str, tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value that ends in a colon, as a default does, is a mapping where it stands without quotes."""
    stackfile = local_module("stackfile", monkeypatch)
    given = {name: f"{kind.lower()}://{kind}{place}" for name, (kind, place) in environ.items()}
    functions = stackfile.read_stack(ROOT / "stack.yml", ROOT, given).functions
    values = [value for function in functions.values() for value in function.environment.values()]
    assert sorted(functions) == SAMPLES
    assert set(given.values()) <= set(values)


def test_places_of_the_samples_are_made_with_the_brokers() -> None:
    """Each topic and subject that they are told of, and the address of the Redis that they share."""
    for kind, place in PLACES.values():
        name = urlsplit(place).path.removeprefix("/")
        subjects = [subject.removesuffix(">") for subjects in STREAMS.values() for subject in subjects]
        assert name in TOPICS if kind == "Kafka" else name in STREAMS or name.startswith(tuple(subjects))
    assert f"${{{VARIABLES['Redis']}:-memory://}}" in (ROOT / "stack.yml").read_text()


@pytest.mark.parametrize("name", sorted(STACK))
def test_functions_that_take_events_are_closed_to_forged_ones(name: str) -> None:
    """Only what an anonymous connector calls is open; secrets that are named are mounted."""
    settings = STACK[name]["environment"]
    takes_events = "@on_event" in (FUNCTIONS / name / "handler.py").read_text()
    is_open = "EVENTS_HTTP_PUBLIC" in settings
    assert is_open == ("topic" in STACK[name].get("annotations", {}))
    assert takes_events == (is_open or "EVENTS_HTTP_SECRET" in settings)
    named = {settings[setting] for setting in ("EVENTS_HTTP_SECRET", "PUBLISH_SECRET") if setting in settings}
    assert named == set(STACK[name].get("secrets", []))


def test_public_names_are_those_that_can_be_imported() -> None:
    """`__all__`, the table of homes and the type checker's imports say the same."""
    source = (BASE / "faasbase" / "__init__.py").read_text()
    typed = re.findall(r"^    from \.[\w.]+ import (.+)$", source, re.MULTILINE)
    names = sorted(name.strip() for line in typed for name in line.split(","))
    assert sorted(faasbase.__all__) == names == list(faasbase.__all__)
    assert all(getattr(faasbase, name) is not None for name in faasbase.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = faasbase.nothing


def test_every_requirement_of_the_base_is_pinned_with_a_hash() -> None:
    """What the images and the embedded OpenFaaS install is this list and nothing newer."""
    project = tomllib.loads((BASE / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["otel"]
    for folder in (BASE, TEMPLATE / "local", ROOT / "tests"):
        text = (folder / "requirements.txt").read_text().replace("\\\n", "")
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert lines
        assert [line for line in lines if not PINNED.fullmatch(line)] == []
    locked = set(re.findall(r"^([a-z0-9-]+)==", (BASE / "requirements.txt").read_text(), re.MULTILINE))
    assert {re.split(r"[>=;\[ ]", line)[0] for line in wanted} <= locked


def test_makefile_stays_short_and_explains_itself() -> None:
    """`make` alone lists every target."""
    lines = (ROOT / "Makefile").read_text().splitlines()
    assert len(lines) < 80
    phony = next(line for line in lines if line.startswith(".PHONY:")).split()[1:]
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(f"  {target} " in listed for target in phony)
