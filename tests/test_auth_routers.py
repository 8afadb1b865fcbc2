"""Callers that a router asks for where it is included, however deep: as if the route itself did."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from faasbase.errors import SecretMissingError, SettingError
from faasbase.testing import client, signed
from tests.protected import KEY, ORDER, TOKEN, bearer, module_of

HANDLER = """
from typing import Annotated

from fastapi import APIRouter, Depends, Form, WebSocket
from pydantic import BaseModel

from faasbase import Bearer, CallerDep, Signature

ran = []


class Order(BaseModel):
    amount: int


orders, shop, site, router = APIRouter(), APIRouter(), APIRouter(), APIRouter()


@orders.post("/order")
async def order(order: Order, caller: CallerDep) -> str:
    ran.append("order")
    return caller.secret


@orders.post("/form")
async def form(name: Annotated[str, Form()]) -> str:
    return name


@orders.websocket("/socket")
async def socket(socket: WebSocket, caller: CallerDep) -> None:
    await socket.accept()
    await socket.send_text(caller.secret)
    await socket.close()


shop.include_router(orders)
site.include_router(shop, prefix="/bearer", dependencies=[Depends(Bearer("api-token"))])
site.include_router(shop, prefix="/signed", dependencies=[Depends(Signature("key"))])
router.include_router(site, prefix="/site")
"""
SECRETS = {"api-token": TOKEN, "key": KEY}


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return module_of(HANDLER, monkeypatch)


def test_caller_is_who_the_including_router_asks_for(handler: Any) -> None:
    with client(handler, secrets=SECRETS) as function:
        shown = function.post("/site/bearer/order", json=ORDER, headers=bearer(TOKEN))
        assert (shown.status_code, shown.json()) == (200, "api-token")
        signs = function.post("/site/signed/order", **signed(ORDER, KEY))
        assert (signs.status_code, signs.json()) == (200, "key")
        with function.websocket_connect("/site/bearer/socket", headers=bearer(TOKEN)) as socket:
            assert socket.receive_text() == "api-token"
        assert function.post("/site/bearer/order", **signed(ORDER, KEY)).status_code == 401
    assert handler.ran == ["order"] * 2


@pytest.mark.parametrize("path", ["/site/bearer/order", "/site/signed/order"])
def test_body_is_not_parsed_before_the_caller_is_known(handler: Any, path: str) -> None:
    """Else strangers are told what an order looks like."""
    with client(handler, secrets=SECRETS) as function:
        refused = function.post(path, content=b"{ no JSON", headers={"content-type": "application/json"})
    assert (refused.status_code, refused.headers["content-type"]) == (401, "application/problem+json")


def test_form_is_signed_before_it_is_parsed(handler: Any) -> None:
    message = signed(b"name=Ada", KEY)
    message["headers"]["content-type"] = "application/x-www-form-urlencoded"
    with client(handler, secrets=SECRETS) as function:
        answer = function.post("/site/signed/form", **message)
    assert (answer.status_code, answer.json()) == (200, "Ada")


@pytest.mark.parametrize("name", SECRETS)
def test_missing_secret_of_an_including_router_stops_the_start(handler: ModuleType, name: str) -> None:
    secrets = {other: value for other, value in SECRETS.items() if other != name}
    with pytest.raises(SecretMissingError, match=f"secret {name}"), client(handler, secrets=secrets):
        pass


def test_route_that_asks_who_calls_where_nobody_does_stops_the_start(handler: Any) -> None:
    handler.router.include_router(handler.orders, prefix="/open")
    with pytest.raises(SettingError, match="/open/order asks who calls"), client(handler, secrets=SECRETS):
        pass


def test_openapi_says_what_each_place_asks_for(handler: Any) -> None:
    with client(handler, secrets=SECRETS) as function:
        paths = function.get("/openapi.json").json()["paths"]
    assert paths["/site/bearer/order"]["post"]["security"] == [{"bearer-api-token": []}]
    assert paths["/site/signed/order"]["post"]["security"] == [{"signature-key": []}]
