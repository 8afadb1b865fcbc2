"""Dead letters from the command line: arguments and settings that are wrong, and what is imported for them."""

from __future__ import annotations

import json

import pytest

from deploy.brokers.processes import reserve_port
from tests.letter_places import command

pytestmark = pytest.mark.anyio

IMPORTED = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps([name for name in ("aiokafka", "nats") if name in sys.modules])))
"""


@pytest.mark.parametrize(
    ("arguments", "settings", "word"),
    [
        ((), {}, "list|show|redrive|purge"),
        (("list", "--rate", "5"), {}, "--rate"),
        (("redrive", "--rate", "fast"), {}, "10/s"),
        (("list", "--since", "yesterday"), {}, "2026-01-31T12:00"),
        (("list", "--timeout", "0s"), {}, "over 0"),
        (("show",), {}, "ID"),
        (("list",), {}, "EVENTS_URL"),
        (("list",), {"EVENTS_URL": "kafka://a/b,nats://c/D"}, "--url"),
        (("list",), {"DEADLETTER_URL": "redis://a:b@c/d"}, "DEADLETTER_URL"),
        (("list",), {"DEADLETTER_URL": "kafka://a:hidden@c/d"}, "DEADLETTER_URL"),
        (("list", "--url", "nats://a:hidden@c/d"), {}, "--url"),
        (("list",), {"EVENTS_LANES": "many"}, "EVENTS_LANES"),
    ],
)
async def test_what_is_wrong_is_named_in_one_line(
    arguments: tuple[str, ...], settings: dict[str, str], word: str
) -> None:
    done = await command(None, *arguments, **settings)
    assert (done.status, word in done.errors) == (2, True), done.errors
    assert len(done.errors.splitlines()) == 1
    assert done.lines == []
    assert "hidden" not in done.errors


@pytest.mark.parametrize("scheme", ["kafka", "nats"])
async def test_nobody_answering_is_told_within_the_timeout(scheme: str) -> None:
    address = f"127.0.0.1:{reserve_port()}"
    done = await command(None, "list", "--timeout", "1s", DEADLETTER_URL=f"{scheme}://{address}/letters")
    assert (done.status, f"has answered at {address} within 1 s" in done.errors) == (2, True), done.errors
    assert len(done.errors.splitlines()) == 1
    assert done.seconds < 15


async def test_only_what_the_url_names_is_imported() -> None:
    address = f"127.0.0.1:{reserve_port()}"
    for scheme, module in (("kafka", ["aiokafka"]), ("nats", ["nats"]), ("redis", [])):
        url = f"{scheme}://{address}/letters"
        done = await command(None, "list", "--timeout", "100ms", script=IMPORTED, DEADLETTER_URL=url)
        assert json.loads(done.lines[-1]) == module
