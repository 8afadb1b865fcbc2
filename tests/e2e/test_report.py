"""The report tells what images weigh, and how little of it is their own."""

from __future__ import annotations

import json

from deploy.images.engine import Engine
from deploy.images.project import ROOT, TEMPLATE
from deploy.images.report import table, weigh
from tests.e2e.conftest import Build


def test_functions_share_all_layers_of_the_base(engine: Engine, build: Build, base_image: str) -> None:
    images = [build(TEMPLATE / "function", "hello"), build(ROOT / "functions" / "image-processor", "image-processor")]
    base, hello, sample = weigh(engine, images, base_image)
    assert [layer.diff_id for layer in base.own] == engine.inspect(base_image)["RootFS"]["Layers"]
    assert list(hello.shared) == list(sample.shared) == list(base.own)
    # Without packages of its own a function is its code, a few launchers and what says that it has none.
    assert hello.own_bytes < 200_000
    assert [layer.made_by for layer in sample.own][-1].startswith("COPY /home")
    assert sample.own_bytes > 10_000_000


def test_it_is_for_people_and_for_machines(engine: Engine, build: Build, base_image: str) -> None:
    image = build(TEMPLATE / "function", "hello")
    weights = weigh(engine, [image], base_image)
    lines = table(weights).splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("  ")] == ["image", base_image, image]
    told = json.loads(json.dumps([weight.as_json() for weight in weights]))[1]
    assert told["bytes"] == told["base"]["bytes"] + sum(layer["bytes"] for layer in told["layers"])
    assert told["base"]["layers"] + len(told["layers"]) == len(engine.inspect(image)["RootFS"]["Layers"])
