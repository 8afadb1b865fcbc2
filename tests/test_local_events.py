"""Events in the embedded OpenFaaS: the cluster's gateway is the local one, and nobody is asked for pushers' secrets."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.local_up import local_module, make_project, up
from tests.wire import call

pytestmark = pytest.mark.anyio

LOCAL = "http://127.0.0.1:18080"
CLUSTER = "http://gateway.openfaas:8080"
HANDLER = """
import os

async def handle() -> list[str | None]:
    return [os.environ.get(name) for name in ("PUBLISH_URL", "PUBLISH_SECRET", "EVENTS_HTTP_SECRET")]
"""
MORE = f"""\
secrets: [events-key, api-key]
environment:
  PUBLISH_URL: {CLUSTER}/async-function/other
  PUBLISH_SECRET: events-key
  EVENTS_HTTP_SECRET: events-key, older-key
"""


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return local_module("events", monkeypatch)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{CLUSTER}/async-function/worker", f"{LOCAL}/async-function/worker"),
        ("http://gateway:8080/function/worker?a=b", f"{LOCAL}/function/worker?a=b"),
        ("http://gateway.openfaas.svc:8080", LOCAL),
        ("http://gateway.openfaas.svc.cluster.local:8080/", f"{LOCAL}/"),
        ("http://gateway.shop:8080/", "http://gateway.shop:8080/"),
        ("http://gateway.openfaas.svc.example.org:8080/", "http://gateway.openfaas.svc.example.org:8080/"),
        ("http://gateway.openfaas:80800/", "http://gateway.openfaas:80800/"),
        ("http://gateway.openfaas:8080.example.org/", "http://gateway.openfaas:8080.example.org/"),
        ("https://gateway.openfaas:8080/", "https://gateway.openfaas:8080/"),
        ("kafka://gateway:8080/orders", "kafka://gateway:8080/orders"),
    ],
)
def test_gateway_of_the_cluster_is_the_local_one(events: ModuleType, tmp_path: Path, value: str, expected: str) -> None:
    """Whatever setting names it, and no other host that looks like it."""
    assert events.local_environment({"PUBLISH_URL": value}, tmp_path, f"{LOCAL}/") == {"PUBLISH_URL": expected}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ["http:"]),
        (" ", ["http:"]),
        ("kafka://user@a:9092,b:9092/orders?group=x", ["kafka://a:9092,b:9092/orders"]),
        ("nats://a:4222/ORDERS?durable=x , http:", ["nats://a:4222/ORDERS", "http:"]),
        ("http:,memory://orders", ["http:", "memory://orders"]),
        ("kafka://me:p@ss/wo?rd@a/orders", ["kafka://a/orders"]),
    ],
)
def test_sources_of_events_are_told_without_users_and_options(
    events: ModuleType, value: str | None, expected: list[str]
) -> None:
    assert events.event_sources({} if value is None else {"EVENTS_URL": value}) == expected


@pytest.mark.parametrize(
    ("there", "expected"),
    [((), None), (("a-key",), "a-key"), (("b-key",), "b-key"), (("b-key", "a-key"), "a-key,b-key")],
)
def test_secrets_of_pushers_are_used_where_they_are_there(
    events: ModuleType, tmp_path: Path, there: tuple[str, ...], expected: str | None
) -> None:
    """One that is absent stops no start; other settings of secrets stay as they are."""
    for name in there:
        (tmp_path / name).write_text("a secret of pushers")
    given = {"EVENTS_HTTP_SECRET": " a-key, b-key ,", "AUTH_BEARER_SECRET": "c-key"}
    environment = events.local_environment(given, tmp_path, LOCAL)
    assert environment.get("EVENTS_HTTP_SECRET") == expected
    assert environment["AUTH_BEARER_SECRET"] == "c-key"
    assert events.pushing_secrets(given) == {"a-key", "b-key"}


async def test_function_starts_without_secrets_that_nobody_needs_here(tmp_path: Path) -> None:
    """It is told of the other one, and finds the local gateway."""
    project = make_project(tmp_path, {"fn": HANDLER}, more=MORE)
    with up(project) as local:
        assert "its secret api-key is missing" in local.output()
        assert "events-key" not in local.output()
        answer = await call(local.port, "/function/fn", method="POST")
        assert answer.json() == [f"{local.url}/async-function/other", None, None]


async def test_function_gets_the_secrets_that_are_there(tmp_path: Path) -> None:
    """A developer who wants to try them puts them into ``.secrets``."""
    project = make_project(tmp_path, {"fn": HANDLER}, more=MORE)
    (project / ".secrets").mkdir()
    (project / ".secrets" / "events-key").write_text("a secret of pushers")
    with up(project) as local:
        answer = await call(local.port, "/function/fn", method="POST")
        assert answer.json()[1:] == ["events-key", "events-key"]
