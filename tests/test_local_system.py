"""The system API of the embedded OpenFaaS, raw and through the real faas-cli."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import anyio
import pytest

from tests.local_up import Up, faas_cli, make_project, parsed_lines, up
from tests.wire import call, opened, request_bytes

pytestmark = pytest.mark.anyio

HANDLER = """
from fastapi import Request

async def handle(request: Request):
    print("called with", request.query_params.get("say", "nothing"), flush=True)
    return {"body": (await request.body()).decode()}
"""
MORE = """\
environment:
  LIMIT: 1.10
  DEBUG: true
environment_file:
  - more.yml
labels:
  team: ${TEAM:-shop}
annotations:
  note: kept
secrets:
  - api-key
limits:
  memory: 128Mi
  cpu: 100m
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("system")
    project = make_project(folder, {"greet": HANDLER, "broken": "import nothing_here\n"}, more=MORE)
    (project / "more.yml").write_text("environment:\n  FROM_FILE: $x\n  LIMIT: from the file\n")
    with up(project) as running:
        yield running


async def test_functions_are_listed_as_the_stack_file_has_them(local: Up) -> None:
    functions = {each["name"]: each for each in (await call(local.port, "/system/functions")).json()}
    assert set(functions) == {"greet", "broken"}
    greet = functions["greet"]
    assert greet["image"] == "greet:1.0"
    assert greet["namespace"] == "openfaas-fn"
    assert greet["envVars"] == {"LIMIT": "from the file", "DEBUG": "true", "FROM_FILE": "$x"}
    assert greet["labels"] == {"team": "shop"}
    assert greet["annotations"]["note"] == "kept"
    assert greet["limits"] == {"memory": "128Mi", "cpu": "100m"}
    assert (greet["replicas"], greet["availableReplicas"]) == (1, 1)
    assert functions["broken"]["availableReplicas"] == 0
    assert (await call(local.port, "/system/functions?namespace=other")).json() == []


async def test_metrics_of_a_function_are_where_the_terminal_says(local: Up) -> None:
    """As the description says, too: the port is another one after each change of code."""
    found = re.search(
        r"^greet: ready in \S+ s, metrics on (http://127\.0\.0\.1:(\d+)/metrics)$", local.output(), re.MULTILINE
    )
    assert found is not None
    described = (await call(local.port, "/system/function/greet")).json()
    assert described["annotations"]["local/metrics"] == found[1]
    assert "http_requests_total" in (await call(int(found[2]), "/metrics")).text


async def test_invocations_are_counted(local: Up) -> None:
    async def count() -> int:
        return int((await call(local.port, "/system/function/greet")).json()["invocationCount"])

    before = await count()
    await call(local.port, "/function/greet")
    assert await count() == before + 1


async def test_description_of_a_broken_function_has_its_start_error(local: Up) -> None:
    described = (await call(local.port, "/system/function/broken?usage=1")).json()
    assert "nothing_here" in described["annotations"]["local/error"]
    assert (await call(local.port, "/system/function/nope")).status == 404


async def test_missing_secret_is_said_at_the_start(local: Up) -> None:
    assert "greet: its secret api-key is missing, put it into .secrets/api-key" in local.output()


async def test_info_and_namespaces_have_the_gateways_shape(local: Up) -> None:
    info = (await call(local.port, "/system/info")).json()
    assert info["provider"]["orchestration"] == "processes"
    assert info["version"]["release"]
    assert (await call(local.port, "/system/namespaces")).json() == ["openfaas-fn"]


async def test_logs_are_lines_of_json_with_tail_and_since(local: Up) -> None:
    for word in ("one", "two", "three"):
        await call(local.port, f"/function/greet?say={word}")
    await local.says("greet | called with three")
    lines = parsed_lines((await call(local.port, "/system/logs?name=greet&follow=false")).text)
    said = [line["text"] for line in lines if line["text"].startswith("called with")]
    assert said[-3:] == ["called with one", "called with two", "called with three"]
    assert {line["name"] for line in lines} == {"greet"}
    assert datetime.fromisoformat(lines[-1]["timestamp"]).tzinfo is not None
    tail = parsed_lines((await call(local.port, "/system/logs?name=greet&tail=2")).text)
    assert tail == lines[-2:]
    later = quote((datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert (await call(local.port, f"/system/logs?name=greet&since={later}")).text == ""


async def test_followed_logs_arrive_as_they_are_written(local: Up) -> None:
    async with opened(local.port) as connection:
        await connection.send(request_bytes("GET", "/system/logs?name=greet&follow=true&tail=1"))
        status, headers = await connection.head()
        assert (status, dict(headers)["content-type"]) == (200, "application/x-ndjson")
        await call(local.port, "/function/greet?say=followed")
        with anyio.fail_after(5):
            async for piece in connection.pieces("GET", status, headers):
                if b"called with followed" in piece.data:
                    break


@pytest.mark.parametrize(
    ("query", "status"),
    [("name=nope", 404), ("name=greet&tail=x", 422), ("name=greet&since=yesterday", 422)],
)
async def test_bad_log_request_is_refused(local: Up, query: str, status: int) -> None:
    assert (await call(local.port, f"/system/logs?{query}")).status == status


@pytest.mark.tool("faas-cli")
def test_faas_cli_lists_and_describes(local: Up) -> None:
    assert "greet" in faas_cli(local, "list")
    assert "Status:             Ready" in faas_cli(local, "describe", "greet")
    broken = faas_cli(local, "describe", "broken")
    assert "Not Ready" in broken
    assert "nothing_here" in broken


@pytest.mark.tool("faas-cli")
def test_faas_cli_invokes(local: Up) -> None:
    answer = faas_cli(local, "invoke", "greet", stdin="hello").splitlines()[-1]
    assert json.loads(answer) == {"body": "hello"}
    faas_cli(local, "invoke", "greet", "--async", "--query", "say=async", stdin="later")


@pytest.mark.tool("faas-cli")
async def test_faas_cli_shows_logs(local: Up) -> None:
    await call(local.port, "/function/greet?say=for-the-cli")
    await local.says("greet | called with for-the-cli")
    shown = await anyio.to_thread.run_sync(lambda: faas_cli(local, "logs", "greet", "--tail=false"))
    assert "called with for-the-cli" in shown


def test_secret_files_reach_the_function(tmp_path: Path) -> None:
    handler = (
        "import os\nfrom pathlib import Path\nseen = Path(os.environ['FAAS_SECRETS_DIR'], 'api-key').read_text()\n"
        "print('read', seen, flush=True)\nasync def handle() -> str:\n    return 'ok'\n"
    )
    project = make_project(tmp_path, {"reader": handler})
    (project / ".secrets").mkdir()
    (project / ".secrets" / "api-key").write_text("opened")
    with up(project) as local:
        assert "reader | read opened" in local.output()
