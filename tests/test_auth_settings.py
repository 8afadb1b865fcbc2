"""A whole function, of any form, or what brings its events, is guarded by its settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import WebSocketDenialResponse

from faasbase.errors import SecretMissingError, SettingError
from faasbase.testing import client, signed
from tests.processes import run_function
from tests.protected import KEY, SECRETS, TOKEN, bearer, module_of
from tests.test_imports import imported, of
from tests.wire import call

CLASSIC = 'def handle(event, context):\n    return {"statusCode": 200, "body": event.body}\n'
TYPED = """
from faasbase import CallerDep
async def handle(caller: CallerDep) -> str:
    return caller.scheme
"""
OPEN = 'async def handle() -> str:\n    return "ok"\n'
ASGI = """
from fastapi import FastAPI, WebSocket
app = FastAPI()
@app.post("/")
async def root() -> str:
    return "app"
@app.websocket("/socket")
async def socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.close()
"""
ROUTER = """
from fastapi import APIRouter
from starlette.responses import PlainTextResponse
router = APIRouter()
router.mount("/mounted", PlainTextResponse("mounted"))
@router.post("/")
async def root() -> str:
    return "router"
"""


@pytest.mark.parametrize("source", [CLASSIC, TYPED, ASGI, ROUTER], ids=["classic", "typed", "app", "router"])
def test_settings_guard_the_whole_function(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Every form and every path; a token or a signature, and the body arrives as it was."""
    guarded = {"auth_bearer_secrets": ("api-token",), "auth_signature_secrets": ("key",)}
    with client(module_of(source, monkeypatch), secrets=SECRETS, **guarded) as function:
        for path in ("/", "/mounted", "/no/such/path", "/%2e%2e/docs/x"):
            refused = function.post(path, content=b"{")
            assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")
            assert refused.json()["call_id"]
        assert function.post("/", headers=bearer(TOKEN)).status_code == 200
        message = signed({"a": 1}, KEY)
        answers = [function.post("/", **message) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 401]
        if source is CLASSIC:
            assert answers[0].text == '{"a": 1}'
        if source is TYPED:
            assert answers[0].json() == "signature"
        if source is ASGI:
            with pytest.raises(WebSocketDenialResponse), function.websocket_connect("/socket"):
                pass


def test_documentation_of_a_guarded_function_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells callers what to show; ``DOCS_ENABLED=false`` closes it."""
    handler = module_of(TYPED, monkeypatch)
    guarded: dict[str, Any] = {"auth_bearer_secrets": ("api-token",), "auth_signature_secrets": ("key",)}
    with client(handler, secrets=SECRETS, root_path="/function/shop", **guarded) as function:
        document = function.get("/openapi.json").json()
        assert document["paths"]["/"]["post"]["security"] == [{"bearer-api-token": []}, {"signature-key": []}]
        assert function.get("/docs").status_code == 200
        assert function.post("/docs").status_code == 401
    with client(module_of(OPEN, monkeypatch), secrets=SECRETS, **guarded) as function:
        assert [function.get(path).status_code for path in ("/docs", "/docs/", "/docs/x")] == [200, 401, 401]
        assert function.post("/docs").status_code == 401
    with client(handler, secrets=SECRETS, docs_enabled=False, **guarded) as function:
        assert function.get("/docs").status_code == 401


def test_caller_that_nobody_asks_for_is_told_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that wants to know who calls must not take anybody's word."""
    handler = module_of(TYPED, monkeypatch)
    with pytest.raises(SettingError, match="AUTH_BEARER_SECRET"), client(handler, secrets=SECRETS):
        pass
    with pytest.raises(SecretMissingError, match="setting AUTH_BEARER_SECRET"):  # noqa: SIM117
        with client(handler, auth_bearer_secrets=("api-token",)):
            pass


@pytest.mark.anyio
async def test_guarded_process_answers_its_probes(tmp_path: Path) -> None:
    """Health, readiness and the path that readiness asks need no token; the log and the metrics hold none."""
    (tmp_path / "api-token").write_text(TOKEN)
    env = {"FAAS_SECRETS_DIR": str(tmp_path), "AUTH_BEARER_SECRET": "api-token", "ready_path": "/ready"}
    async with run_function(OPEN, **env) as function:
        await function.ready()
        forged = {"X-Forwarded-Proto": "probe", "X-Forwarded-Host": "a"}
        refused = [await call(function.port, path, headers=forged) for path in ("/", "/ready", "/_/health/")]
        allowed = await call(function.port, "/", headers={"Authorization": f"Bearer {TOKEN}"})
        wrong = await call(function.port, "/", headers={"Authorization": "Bearer canary-4712"})
        metrics = (await call(function.metrics_port, "/metrics")).text
        output = function.output()
    assert [answer.status for answer in refused] == [401, 401, 401]
    assert (allowed.status, wrong.status) == (200, 401)
    assert re.search(r'faas_auth_refused_total\{.*"unknown".*\} 1', metrics)
    assert TOKEN not in output + metrics
    assert "canary-4712" not in output + metrics


EVENT = """
from faasbase import Event, on_event

@on_event("order.created")
async def fulfil(event: Event[dict]) -> None:
    print("fulfilled", event.id)
"""


@pytest.mark.anyio
async def test_pusher_of_events_may_sign_them(tmp_path: Path) -> None:
    """With any of several secrets; once."""
    (tmp_path / "older").write_text(TOKEN)
    (tmp_path / "newer").write_text(KEY)
    env = {"FAAS_SECRETS_DIR": str(tmp_path), "EVENTS_HTTP_SECRET": "newer, older", "EVENTS_HTTP_PUBLIC": None}
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.created", "data": {}}
    async with run_function(EVENT, **env) as function:
        await function.ready()

        async def push(message: dict[str, Any], **more: str) -> int:
            headers = {**message["headers"], "content-type": "application/cloudevents+json", **more}
            answer = await call(function.port, "/", method="POST", headers=headers, body=message["content"])
            return answer.status

        first, second, forged = (signed(event, key) for key in (KEY, TOKEN, "another-key"))
        plain = {**signed(event, KEY), "headers": {}}
        statuses = [await push(message) for message in (first, first, second, forged, plain)]
        shown = await push(plain, Authorization=f"Bearer {TOKEN}")
    assert statuses == [204, 401, 204, 401, 401]
    assert shown == 204


@pytest.mark.anyio
async def test_rotation_in_place_fails_no_call(tmp_path: Path) -> None:
    """Also where a file is empty for a moment while it is written."""
    (tmp_path / "api-token").write_text(TOKEN)
    env = {"FAAS_SECRETS_DIR": str(tmp_path), "AUTH_BEARER_SECRET": "api-token"}
    async with run_function(OPEN, **env) as function:
        await function.ready()
        statuses = []
        for number in range(60):
            (tmp_path / "api-token").write_text(f"newer-token-{number}\n{TOKEN}\n")
            statuses.append((await call(function.port, "/", headers={"Authorization": f"Bearer {TOKEN}"})).status)
    assert set(statuses) == {200}


@pytest.mark.anyio
async def test_function_without_authentication_imports_none_of_it() -> None:
    """A start pays only for what the handler uses."""
    assert of(("faasbase.auth", "faasbase.guarding", "faasbase.signing", "faasbase.callers"), await imported()) == []
