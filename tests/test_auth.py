"""Callers are authenticated on the routes that ask for it: by bearer token, in a rotation, and at start."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import WebSocketDenialResponse

from faasbase.credentials import Credentials, read_credential
from faasbase.errors import SecretMissingError
from faasbase.testing import client, signed
from tests.protected import ADMIN, HANDLER, KEY, ORDER, SECRETS, TOKEN, bearer, module_of, serve


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the handler, which is imported before its secrets are known, as a test's is."""
    return module_of(HANDLER, monkeypatch)


@pytest.fixture
def function(handler: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """Serve the handler with its secrets in files under ``tmp_path``."""
    yield from serve(handler, tmp_path)


@pytest.mark.parametrize(
    ("header", "secret"),
    [
        (f"Bearer {TOKEN}", "api-token"),
        (f"bearer {TOKEN}", "api-token"),
        (f"BEARER   {TOKEN}  ", "api-token"),
        ("Bearer older-token-4710", "api-token"),
        (f"Bearer {ADMIN}", "admin-token"),
    ],
)
def test_valid_token_lets_its_caller_in(function: Any, header: str, secret: str) -> None:
    """Each line of each secret; the scheme in any case, as RFC 9110 has it."""
    answer = function.post("/bearer", json=ORDER, headers={"authorization": header})
    assert (answer.status_code, answer.json()) == (200, ["bearer", secret])


REFUSED_BEARERS = [
    [],
    [b""],
    [b"Bearer"],
    [b"Bearer "],
    [b"Bearer wrong-token"],
    [b"Bearer " + TOKEN.upper().encode()],
    [b"Bearer " + TOKEN.encode()[:-1]],
    [b"Bearer " + TOKEN.encode() + b"x"],
    [b"Bearer " + TOKEN.encode() + b" " + TOKEN.encode()],
    [b"Bearer " + TOKEN.encode() + b"\nolder-token-4710"],
    [b"Bearer\t" + TOKEN.encode()],
    [b"Basic " + TOKEN.encode()],
    [TOKEN.encode()],
    [b"Bearer " + "tök\u00e9n".encode()],
    [b"Bearer \xff\xfe\x00"],
    [b"Bearer " + b"x" * 4097],
    [b"Bearer " + b"x" * 60_000],
    [b"Bearer " + TOKEN.encode(), b"Bearer " + TOKEN.encode()],
    [b"Bearer wrong-token", b"Bearer " + TOKEN.encode()],
]


@pytest.mark.parametrize("values", REFUSED_BEARERS, ids=lambda values: str(values)[:40])
def test_other_callers_are_refused_and_nothing_is_done(function: Any, values: list[bytes]) -> None:
    """401 as problem details with a challenge, before the body is so much as parsed, and the reason is no hint."""
    headers = [("content-type", "application/json"), *(("authorization", value) for value in values)]
    answer = function.post("/bearer", content=b"{ no JSON", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["www-authenticate"].split()[0] == "Bearer"
    assert (answer.json()["detail"], bool(answer.json()["call_id"])) == ("a valid bearer token is needed", True)
    assert function.ran == []


def test_body_is_validated_after_the_caller(function: Any) -> None:
    """Who is let in is told what is wrong with the order."""
    answer = function.post("/bearer", json={"amount": "x"}, headers=bearer(TOKEN))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.amount")


def test_caller_that_may_not_do_it_is_403(function: Any) -> None:
    """Known, and not allowed: another token would be."""
    assert function.delete("/bearer", headers=bearer(ADMIN)).status_code == 200
    refused = function.delete("/bearer", headers=bearer(TOKEN))
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")


def test_router_asks_for_all_of_its_routes(function: Any) -> None:
    """`CallerDep` is who was asked for; a router that is included with more asks for both."""
    one = function.post("/shop/order", json=ORDER, headers=bearer(TOKEN))
    assert (one.status_code, one.json()) == (200, "api-token")
    assert function.post("/shop/order", content=b"{").status_code == 401
    assert function.post("/both/order", json=ORDER, headers=bearer(TOKEN)).status_code == 401
    both = signed(ORDER, KEY)
    both["headers"].update({"authorization": f"Bearer {TOKEN}"})
    assert function.post("/both/order", **both).status_code == 200
    assert function.get("/open").json() == "open"


def test_websocket_is_refused_before_it_opens(function: Any) -> None:
    """It has headers like any call."""
    with function.websocket_connect("/socket", headers=bearer(ADMIN)) as socket:
        assert socket.receive_text() == "admin-token"
    with pytest.raises(WebSocketDenialResponse) as caught, function.websocket_connect("/socket"):
        pass
    assert caught.value.status_code == 401


def test_replaced_credentials_are_valid_as_long_as_they_stand_in_the_file(function: Any, tmp_path: Path) -> None:
    """New in front of old; the old one is refused from the moment it is gone."""

    def statuses() -> list[int]:
        tokens = (TOKEN, "newer-token-4712")
        return [function.post("/bearer", json=ORDER, headers=bearer(token)).status_code for token in tokens]

    (tmp_path / "admin-token").unlink()
    (tmp_path / "admin-token").write_text(ADMIN)
    assert statuses() == [200, 401]
    (tmp_path / "api-token").write_text(f"newer-token-4712\n{TOKEN}\n")
    assert statuses() == [200, 200]
    (tmp_path / "api-token").write_text("newer-token-4712\n")
    assert statuses() == [401, 200]


def test_secret_that_vanishes_is_an_outage(function: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """503 for whom it may have been, with one line; another secret's callers are still let in."""
    (tmp_path / "api-token").unlink()
    answers = [function.post("/bearer", json=ORDER, headers=bearer(TOKEN)) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503] * 3
    assert answers[0].headers["retry-after"] == "5"
    assert function.post("/bearer", json=ORDER, headers=bearer(ADMIN)).status_code == 200
    (tmp_path / "api-token").write_text(TOKEN)
    assert function.post("/bearer", json=ORDER, headers=bearer(TOKEN)).status_code == 200
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines == ["secret api-token cannot be read: No such file or directory"]


@pytest.mark.parametrize(
    "content",
    [
        "short",
        f"{TOKEN}\nshort",
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0\n-----END PRIVATE KEY-----",
        json.dumps({"token": "a-token-4711", "user": "ada"}, indent=1),
        "\n".join(f"token-number-{number}" for number in range(17)),
        "whsec_",
        "whsec_***not base64***",
        "whsec_AAAA",
    ],
)
def test_secret_that_holds_no_credentials_stops_the_start(handler: ModuleType, content: str) -> None:
    """What anybody can guess, and files meant for something else, whose lines anybody knows."""
    with pytest.raises(SecretMissingError, match="secret key cannot be read") as caught:  # noqa: SIM117
        with client(handler, secrets={**SECRETS, "key": content}):
            pass
    assert content not in str(caught.value)


def test_missing_secret_stops_the_start(handler: ModuleType) -> None:
    """Whichever route asks for it."""
    secrets = {name: value for name, value in SECRETS.items() if name != "key"}
    with pytest.raises(SecretMissingError, match="secret key cannot be read"), client(handler, secrets=secrets):
        pass


@pytest.mark.parametrize("text", ['Bearer("../etc/passwd")', "Bearer()", 'Signature("")', 'Signature("key", "a b")'])
def test_name_that_is_none_is_told_at_import(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A mistake of whoever writes the handler."""
    with pytest.raises(ValueError, match="name of a secret"):
        module_of(f"from faasbase import Bearer, Signature\n{text}", monkeypatch)


def test_openapi_says_what_to_show(function: Any) -> None:
    """And ``/docs`` has its Authorize button; names are as OpenAPI allows."""
    document = function.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    assert schemes["bearer-api-token"] == {"type": "http", "scheme": "bearer"}
    assert (schemes["signature-key"]["in"], schemes["signature-key"]["name"]) == ("header", "webhook-signature")
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in schemes)
    assert document["paths"]["/bearer"]["post"]["security"] == [{"bearer-api-token": []}]
    assert "security" not in document["paths"]["/open"]["get"]


@pytest.mark.anyio
async def test_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    """For a moment, once: then there is nothing to check with."""
    (tmp_path / "key").write_text("")
    credentials = Credentials(["key"], tmp_path)
    asking = asyncio.create_task(credentials.valid())
    await asyncio.sleep(0)
    (tmp_path / "key").write_text(TOKEN)
    assert [credential.secret for credential in (await asking)[0]] == ["key"]
    (tmp_path / "key").write_text("")
    with pytest.raises(SecretMissingError, match="it is empty"):
        await credentials.valid()


def test_credentials_show_no_value(tmp_path: Path) -> None:
    """However they are printed."""
    assert TOKEN not in repr(read_credential("key", TOKEN))
    with pytest.raises(ValueError, match="name of a secret"):
        Credentials([], tmp_path)


IDEMPOTENT = """
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from faasbase import Bearer, Caller, Signature, current_call, idempotent

router = APIRouter()
Buyer = Annotated[Caller, Depends(Bearer("alice", "bob"))]
runs = []


def run() -> list[str]:
    runs.append([caller.secret for caller in current_call().callers])
    return runs[-1]


@router.post("/parameter")
@idempotent()
async def parameter(order: dict, buyer: Buyer) -> list[str]:
    return run()


@router.post("/plain")
@idempotent()
def plain(order: dict, buyer: Buyer) -> list[str]:
    return run()


@router.post("/dependency", dependencies=[Depends(Bearer("alice", "bob"))])
@idempotent()
async def dependency(order: dict) -> list[str]:
    return run()


@router.post("/both", dependencies=[Depends(Bearer("alice", "bob"))])
@idempotent()
async def both(order: dict, shop: Annotated[Caller, Depends(Signature("key"))]) -> list[str]:
    return run()


@router.post("/settings")
@idempotent()
async def settings(order: dict) -> list[str]:
    return run()
"""


@pytest.mark.parametrize("path", ["/parameter", "/plain", "/dependency", "/both", "/settings"])
def test_callers_do_not_share_the_keys_of_operations(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """One that guesses another's key, and its payload, is not shown its result; wherever the caller is asked for."""
    handler: Any = module_of(IDEMPOTENT, monkeypatch)
    secrets = {"alice": "alice-4711\nalice-4710\n", "bob": "bob-4711", "key": KEY}
    settings: dict[str, Any] = {"auth_bearer_secrets": ("alice", "bob")} if path == "/settings" else {}

    def order(function: Any, token: str) -> tuple[list[str], bool]:
        message = signed(ORDER, KEY)
        message["headers"].update({**bearer(token), "idempotency-key": "k-1"})
        answer = function.post(path, **message)
        assert answer.status_code == 200
        return answer.json(), "idempotency-replayed" in answer.headers

    with client(handler, secrets=secrets, **settings) as function:
        answers = [order(function, token) for token in ("alice-4711", "bob-4711", "alice-4710")]
    more = ["key"] if path == "/both" else []
    assert answers == [(["alice", *more], False), (["bob", *more], False), (["alice", *more], True)]
    assert handler.runs == [["alice", *more], ["bob", *more]]
