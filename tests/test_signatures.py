"""Signed messages are taken, once; forged, expired and repeated ones are refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from starlette.testclient import WebSocketDenialResponse

from faasbase.callers import SignatureCheck
from faasbase.credentials import Credentials, read_credential
from faasbase.errors import Problem
from faasbase.replays import Replays, activate_replays
from faasbase.signing import SignatureError, headers_of, read_signed, signed_headers
from faasbase.testing import client, signed
from tests.protected import HANDLER, KEY, ORDER, SECRETS, TOKEN, module_of, serve

# The example that the libraries of Standard Webhooks are tested with.
VECTOR_KEY, VECTOR_ID = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek"
VECTOR = ("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", 1614265330, b'{"test": 2432232314}')


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the handler, which is imported before its secrets are known, as a test's is."""
    return module_of(HANDLER, monkeypatch)


@pytest.fixture
def function(handler: ModuleType, tmp_path: Path) -> Iterator[Any]:
    """Serve the handler with its secrets in files under ``tmp_path``."""
    yield from serve(handler, tmp_path)


def test_signature_is_the_one_of_standard_webhooks() -> None:
    """Any of its libraries can send to a function, and take what one sends."""
    signature, sent_at, body = VECTOR
    headers = headers_of(body, [read_credential("key", VECTOR_KEY)], message_id=VECTOR_ID, sent_at=sent_at)
    assert headers == {"webhook-id": VECTOR_ID, "webhook-timestamp": str(sent_at), "webhook-signature": signature}


def test_signed_message_is_taken(function: Any) -> None:
    """The caller is told by its secret, the message by its id."""
    answer = function.post("/signed", **signed(ORDER, KEY, message_id="msg_1"))
    assert (answer.status_code, answer.json()) == (200, ["signature", "key", "msg_1"])


@pytest.mark.parametrize("key", ["schlüssel", "6f70656e" * 8, "b3BlbnNzbCByYW5k"], ids=["text", "hex", "base64"])
def test_key_may_be_any_text(handler: ModuleType, key: str) -> None:
    """Without ``whsec_`` its characters are the key, whatever they may stand for, without spaces around them."""
    content, seconds = b'{"amount": 3}', int(time.time())
    digest = hmac.new(key.encode(), b"msg_1.%d.%s" % (seconds, content), hashlib.sha256).digest()
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        "content-type": "application/json",
    }
    with client(handler, secrets={**SECRETS, "key": f" {key} \r\n"}) as function:
        assert function.post("/signed", content=content, headers=headers).status_code == 200


def changed(**headers: Any) -> Callable[[dict[str, Any]], None]:
    """Return what puts *headers* into a signed message; None takes one out, a function makes one of the old."""

    def change(message: dict[str, Any]) -> None:
        given: dict[str, str] = message["headers"]
        for name, value in headers.items():
            key = name.replace("_", "-")
            new = value(given[key]) if callable(value) else value
            given.pop(key)
            given.update({} if new is None else {key: new})

    return change


def body_changed(message: dict[str, Any]) -> None:
    """Change a figure of the order."""
    message["content"] = message["content"].replace(b"3", b"4")


FORGERIES = {
    "another body": body_changed,
    "another id": changed(webhook_id="msg_2"),
    "another time": changed(webhook_timestamp=lambda old: str(int(old) - 1)),
    "an odd way to write the time": changed(webhook_timestamp=lambda old: f"0{old}"),
    "a time with a sign": changed(webhook_timestamp=lambda old: f"+{old}"),
    "a fraction": changed(webhook_timestamp=lambda old: f"{old}.0"),
    "other digits": changed(webhook_timestamp=b"\xd9\xa1\xd9\xa7"),
    "no time": changed(webhook_timestamp="soon"),
    "a time without end": changed(webhook_timestamp="9" * 5000),
    "no id": changed(webhook_id=None),
    "an empty id": changed(webhook_id=""),
    "an id without end": changed(webhook_id="m" * 257),
    "an id that is no ASCII": changed(webhook_id=b"\xff"),
    "no time header": changed(webhook_timestamp=None),
    "no signature": changed(webhook_signature=None),
    "an empty signature": changed(webhook_signature=""),
    "a bare version": changed(webhook_signature="v1,"),
    "no version": changed(webhook_signature=lambda old: old[3:]),
    "another version": changed(webhook_signature=lambda old: f"v1a{old[2:]}"),
    "a version in upper case": changed(webhook_signature=str.upper),
    "half of it": changed(webhook_signature=lambda old: old[:20]),
    "base64 without its end": changed(webhook_signature=lambda old: old.rstrip("=")),
    "base64 with more": changed(webhook_signature=lambda old: f"{old}="),
    "hexadecimal": changed(webhook_signature=lambda old: f"v1,{base64.b64decode(old[3:]).hex()}"),
    "bytes that are no ASCII": changed(webhook_signature=b"v1,\xff\x00"),
    "too many": changed(webhook_signature=lambda old: " ".join(["v1,AAAA"] * 40 + [old])),
    "one without end": changed(webhook_signature="v1," + "A" * 5000),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES.keys())
def test_forged_message_is_refused(function: Any, change: Callable[[dict[str, Any]], None]) -> None:
    """401, nothing is done, and the true message can still come."""
    message, true = signed(ORDER, KEY, message_id="msg_1"), signed(ORDER, KEY, message_id="msg_1")
    change(message)
    answer = function.post("/signed", **message)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Standard-Webhooks")
    assert answer.headers["content-type"] == "application/problem+json"
    assert function.ran == []
    assert function.post("/signed", **true).status_code == 200


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_header_that_is_there_twice_is_refused(function: Any, name: str) -> None:
    """What stands in front may read the one, and the function the other."""
    message = signed(ORDER, KEY)
    twice = [*message["headers"].items(), (name, message["headers"][name])]
    assert function.post("/signed", content=message["content"], headers=twice).status_code == 401


def test_message_of_another_key_is_refused(function: Any) -> None:
    """Also one that is signed with the text of the key in place of its bytes."""
    for key in ("another-key", KEY.removeprefix("whsec_"), TOKEN):
        assert function.post("/signed", **signed(ORDER, key)).status_code == 401


@pytest.mark.parametrize(
    ("late", "status"), [(-330, 401), (-290, 200), (0, 200), (290, 200), (330, 401), (-(10**9), 401)]
)
def test_message_is_refused_outside_its_window(function: Any, late: int, status: int) -> None:
    """Five minutes, both ways."""
    answer = function.post("/signed", **signed(ORDER, KEY, sent_at=time.time() - late))
    assert answer.status_code == status


def test_window_can_be_wider(function: Any) -> None:
    """Asynchronous calls wait in a queue."""
    assert function.post("/patient", **signed(ORDER, KEY, sent_at=time.time() - 3000)).status_code == 200
    assert function.post("/patient", **signed(ORDER, KEY, sent_at=time.time() - 3700)).status_code == 401


def test_message_is_taken_once(function: Any) -> None:
    """The same once more is somebody else's; sent again by its sender it has another time."""
    message = signed(ORDER, KEY, message_id="msg_1")
    assert [function.post("/signed", **message).status_code for _ in range(3)] == [200, 401, 401]
    again = signed(ORDER, KEY, message_id="msg_1", sent_at=time.time() + 1)
    assert function.post("/signed", **again).status_code == 200
    assert function.ran == ["signed", "signed"]
    assert function.post("/patient", **message).status_code == 401, "another route is no other function"


@pytest.mark.parametrize(
    ("status", "statuses"),
    [(500, [500, 500]), (503, [503, 503]), (429, [429, 429]), (409, [409, 401]), (422, [422, 401])],
)
def test_message_whose_call_failed_may_come_again(function: Any, status: int, statuses: list[int]) -> None:
    """OpenFaaS' queue sends the same bytes; what was refused for good is not sent again by anybody honest."""
    message = signed(ORDER, KEY)
    assert [function.post(f"/fails/{status}", **message).status_code for _ in range(2)] == statuses


def test_one_of_several_signatures_is_enough_and_not_another_message(function: Any, tmp_path: Path) -> None:
    """In a rotation senders sign with both keys; whoever takes one signature away has a message that was taken."""
    (tmp_path / "key").write_text(f"{KEY}\nolder-key-4710\n")
    keys = [read_credential("key", "older-key-4710"), read_credential("key", KEY)]
    headers = {**headers_of(b"{}", keys), "content-type": "application/json"}
    assert function.post("/patient", content=b"{}", headers=headers).status_code == 200
    for signature in headers["webhook-signature"].split(" "):
        alone = {**headers, "webhook-signature": signature}
        assert function.post("/patient", content=b"{}", headers=alone).status_code == 401


def test_form_and_stream_get_the_body_that_was_signed(function: Any) -> None:
    """Whatever parses it; a large one is hashed beside the loop."""
    form = signed(b"name=Ada", KEY)
    form["headers"]["content-type"] = "application/x-www-form-urlencoded"
    assert function.post("/form", **form).json() == "Ada"
    assert function.post("/stream", **signed(b"x" * 500_000, KEY)).json() == 500_000
    message = signed(b"x" * 500_000, KEY)
    message["content"] = message["content"][:-1] + b"y"
    assert function.post("/stream", **message).status_code == 401


def test_body_is_bounded_before_it_is_checked(function: Any) -> None:
    """MAX_BODY_BYTES holds for a body of unknown length as well."""
    message = signed(b"x" * 700_000, KEY)
    assert function.post("/stream", **message).status_code == 413
    message["content"] = iter([message["content"]])
    assert function.post("/stream", **message).status_code == 413


bodies = st.binary(max_size=200)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


@given(body=bodies, message_id=ids, key=st.text(min_size=8, max_size=40), at=st.integers(0, 399))
@hypothesis_settings(max_examples=150)
def test_any_message_is_its_signers_and_no_changed_one_is(body: bytes, message_id: str, key: str, at: int) -> None:
    """Whatever it holds; one byte of it changed, and it is nobody's."""
    credential = read_credential("key", key.replace("whsec_", "x" * 8).encode("utf-8", "replace").decode())
    headers = headers_of(body, [credential], message_id=message_id, sent_at=1000.0)
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert read_signed(raw, 1000.0, 300.0).signer(body, [credential]) == credential
    message = bytearray(b"\0".join([*(value for _, value in raw), body]))
    message[at % len(message)] ^= 0x01
    *values, forged = bytes(message).split(b"\0", 3) if message.count(b"\0") >= 3 else (b"", b"", b"", b"")
    try:
        found = read_signed(list(zip((name for name, _ in raw), values, strict=True)), 1000.0, 300.0)
        assert found.signer(forged, [credential]) is None
    except SignatureError:
        pass


def test_replays_are_remembered_within_bounds() -> None:
    """Where more come than can be kept, what is older than the forgotten ones is refused, and not taken twice."""
    now = [1000.0]
    replays = Replays(most=3, clock=lambda: now[0])
    assert [replays.take(b"m%d" % n, 900.0 + n, 300.0) for n in range(3)] == [True, True, True]
    assert replays.take(b"m3", 903.0, 300.0)
    assert [replays.take(b"m%d" % n, 900.0 + n, 300.0) for n in range(4)] == [False, False, False, False]
    assert not replays.take(b"another", 900.0, 300.0)
    assert replays.take(b"late", 950.0, 300.0)
    now[0] = 1300.0
    assert replays.take(b"m4", 1300.0, 300.0)
    assert len(replays) == 1


def test_one_signers_many_messages_make_none_of_anothers_doubtful() -> None:
    """A flood of pushed events would have a partner's webhook refused as replayed, though it never came before."""
    replays = Replays(most=3, clock=lambda: 1000.0)
    assert replays.take(b"partner's first", 800.0, 300.0, signer="partner")
    for number in range(9):
        assert replays.take(b"event %d" % number, 990.0 + number, 86_400.0, signer="events", in_doubt=True)
    assert replays.take(b"partner's second", 900.0, 300.0, signer="partner")
    assert not replays.take(b"partner's first", 800.0, 300.0, signer="partner")
    assert not replays.take(b"another event", 990.0, 300.0, signer="events")
    assert not replays.take(b"event 8", 998.0, 86_400.0, signer="partner")


CHECKED = """
from typing import Annotated

from fastapi import APIRouter, Depends, Request, WebSocket

from faasbase import Caller, Problem, Signature

Partner = Annotated[Caller, Depends(Signature("key"))]

router = APIRouter()
checked = APIRouter(dependencies=[Depends(Signature("key"))])


@checked.post("/again")
async def again(caller: Partner) -> str:
    return caller.secret


@checked.post("/stream")
async def stream(request: Request, caller: Partner) -> int:
    return len(await request.body())


@checked.post("/fails")
async def fails(caller: Partner) -> None:
    raise Problem(503, "so it is")


@router.post("/several")
async def several(caller: Annotated[Caller, Depends(Signature("other", "key"))]) -> None: ...


@checked.websocket("/socket/{way}")
async def socket(socket: WebSocket, way: str, caller: Partner) -> None:
    if way == "refused":
        raise RuntimeError("so it is")
    await socket.accept()
    if way == "crashed":
        raise RuntimeError("so it is")
    await socket.close() if way == "closed" else await socket.receive_text()


router.include_router(checked)
"""


@pytest.fixture(params=[{}, {"auth_signature_secrets": ("key",)}], ids=["routes", "settings"])
def checked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Serve routes whose calls are checked twice, or thrice."""
    secrets = {"key": KEY, "other": TOKEN}
    with client(module_of(CHECKED, monkeypatch), secrets=secrets, **request.param) as function:
        yield function


def test_call_may_be_checked_more_than_once(checked: Any) -> None:
    """By settings, router and route: the message is the call's own, and is taken all the same."""
    small, large = signed(ORDER, KEY), signed(b"x" * 500_000, KEY)
    assert [checked.post("/again", **small).status_code for _ in range(2)] == [200, 401]
    assert [checked.post("/stream", **large).status_code for _ in range(2)] == [200, 401]
    failing = signed(ORDER, KEY)
    assert [checked.post("/fails", **failing).status_code for _ in range(2)] == [503, 503]


def test_message_is_not_taken_by_a_route_of_other_secrets(checked: Any) -> None:
    """What tells messages apart is what was signed, not who would have been believed."""
    message = signed(ORDER, KEY)
    answers = [checked.post(path, **message).status_code for path in ("/again", "/several", "/again")]
    assert answers == [200, 401, 401]


@pytest.mark.parametrize("way", ["closed", "left", "crashed"])
def test_handshake_is_taken_once_however_the_socket_ends(checked: Any, way: str) -> None:
    """An open WebSocket has no status, and its handshake is spent."""
    headers = signed(b"", KEY)["headers"]
    with checked.websocket_connect(f"/socket/{way}", headers=headers) as socket:
        socket.close() if way == "left" else socket.receive()
    with pytest.raises(WebSocketDenialResponse) as caught, checked.websocket_connect("/socket/closed", headers=headers):
        pass
    assert caught.value.status_code == 401


def test_handshake_that_failed_may_come_again(checked: Any) -> None:
    """Until the socket is open it is a call like any other."""
    headers = signed(b"", KEY)["headers"]
    with pytest.raises(WebSocketDenialResponse) as caught:  # noqa: SIM117
        with checked.websocket_connect("/socket/refused", headers=headers):
            pass
    assert caught.value.status_code == 500
    with checked.websocket_connect("/socket/closed", headers=headers):
        pass


@pytest.mark.anyio
async def test_patient_check_takes_nothing_that_a_strict_one_has_taken(tmp_path: Path) -> None:
    """A message is remembered for the widest tolerance of the process, which its own check need not have."""
    (tmp_path / "key").write_text(KEY)
    now = [1_000_000.0]

    def check(tolerance_seconds: float) -> SignatureCheck:
        return SignatureCheck(Credentials(["key"], tmp_path), tolerance_seconds, lambda: now[0])

    def scope(message_id: str) -> dict[str, Any]:
        headers = signed(b"", KEY, message_id=message_id, sent_at=1_000_000.0)["headers"]
        return {"headers": [(name.encode(), value.encode()) for name, value in headers.items()]}

    async def body() -> bytes:
        return b""

    strict, patient = check(300.0), check(3600.0)
    with activate_replays(Replays(clock=lambda: now[0])):
        await strict(scope("msg_1"), body)
        now[0] += 1800.0
        await patient(scope("msg_2"), body)
        with pytest.raises(Problem) as caught:
            await patient(scope("msg_1"), body)
    assert caught.value.status == 401


@pytest.mark.anyio
async def test_sender_signs_with_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a receiver which knows only the old key, or only the new one, believes it."""
    (tmp_path / "key").write_text(f"{KEY}\nolder-key-4710\n")
    monkeypatch.setenv("FAAS_SECRETS_DIR", str(tmp_path))
    headers = await signed_headers(b"{}", "key")
    assert len(headers["webhook-signature"].split(" ")) == 2
    assert headers["webhook-id"] != (await signed_headers(b"{}", "key"))["webhook-id"]
