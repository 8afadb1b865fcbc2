"""A function with routes of each kind of authentication, for the tests of callers and of signatures."""

from __future__ import annotations

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from faasbase.testing import client

HANDLER = """
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, WebSocket
from pydantic import BaseModel

from faasbase import Bearer, Caller, CallerDep, Problem, Signature

ran = []


class Order(BaseModel):
    amount: int


Reader = Annotated[Caller, Depends(Bearer("api-token", "admin-token"))]
Partner = Annotated[Caller, Depends(Signature("key"))]
Patient = Annotated[Caller, Depends(Signature("key", tolerance_seconds=3600))]

router = APIRouter()
orders = APIRouter(dependencies=[Depends(Bearer("api-token"))])


@router.post("/bearer")
async def bearer(order: Order, caller: Reader) -> list[str]:
    ran.append("bearer")
    return [caller.scheme, caller.secret]


@router.delete("/bearer")
async def remove(caller: Reader) -> None:
    caller.require("admin-token")


@router.post("/signed")
def partner(order: Order, caller: Partner) -> list[str]:
    ran.append("signed")
    return [caller.scheme, caller.secret, caller.message_id]


@router.post("/patient")
async def patient(caller: Patient) -> None: ...


@router.post("/form")
async def form(name: Annotated[str, Form()], caller: Partner) -> str:
    return name


@router.post("/stream")
async def stream(request: Request, caller: Partner) -> int:
    return sum([len(chunk) async for chunk in request.stream()])


@router.post("/fails/{status}")
async def fails(status: int, caller: Partner) -> None:
    ran.append(status)
    raise Problem(status, "so it is") if status != 500 else RuntimeError("so it is")


@router.websocket("/socket")
async def socket(socket: WebSocket, caller: Reader) -> None:
    await socket.accept()
    await socket.send_text(caller.secret)
    await socket.close()


@router.get("/open")
async def open_to_all() -> str:
    return "open"


@orders.post("/order")
async def order(order: Order, caller: CallerDep) -> str:
    return caller.secret


router.include_router(orders, prefix="/shop")
router.include_router(orders, prefix="/both", dependencies=[Depends(Signature("key"))])
"""
TOKEN, ADMIN, KEY = "token-4711", "admin-4711", "whsec_" + base64.b64encode(b"k" * 32).decode()
SECRETS = {"api-token": f"{TOKEN}\n\nolder-token-4710\n", "admin-token": ADMIN, "key": KEY}
ORDER = {"amount": 3}


def module_of(source: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return *source* as the module of a handler."""
    module = ModuleType("handler")
    module.__file__ = "function/handler.py"
    monkeypatch.setitem(sys.modules, "handler", module)
    exec(compile(source, "handler.py", "exec", dont_inherit=True), vars(module))  # noqa: S102 - as importing does
    return module


def serve(handler: ModuleType, folder: Path) -> Iterator[Any]:
    """Serve *handler* with its secrets in files of *folder*, and give its client; ``.ran`` is what has run."""
    for name, value in SECRETS.items():
        (folder / name).write_text(value)
    with client(handler, secrets_dir=folder, max_body_bytes=600_000) as running:
        served: Any = running
        served.ran = handler.ran
        yield served


def bearer(token: str | bytes) -> dict[str, Any]:
    """Return the header that shows *token*."""
    return {"authorization": b"Bearer " + (token.encode() if isinstance(token, str) else token)}
