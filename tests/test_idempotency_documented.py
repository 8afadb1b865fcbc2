"""The OpenAPI document tells callers of the key that an idempotent handler wants, and of how it refuses."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Header
from pydantic import BaseModel

from faasbase import idempotent, problem_responses
from faasbase.testing import client
from tests.protected import module_of

PROBLEM = "application/problem+json"


class Order(BaseModel):
    id: str


def made_router() -> APIRouter:
    router, inner = APIRouter(), APIRouter()

    @inner.post("/needed/{shop}")
    @idempotent()
    async def needed(shop: str, order: Order) -> str:
        return order.id

    @router.put("/optional", responses={409: {"description": "Sold out"}})
    @idempotent(required=False)
    def optional(order: Order) -> str:
        return order.id

    @router.post("/expression")
    @idempotent(key="order.id")
    async def expression(order: Order) -> str:
        return order.id

    @router.post("/own")
    @idempotent()
    async def own(order: Order, idempotency_key: Annotated[str, Header()]) -> str:
        return order.id

    @router.get("/plain")
    async def plain() -> str:
        return ""

    router.include_router(inner, prefix="/inner")
    return router


@pytest.fixture
def document(monkeypatch: pytest.MonkeyPatch) -> Any:
    handler: Any = module_of("", monkeypatch)
    handler.router = made_router()
    for _ in range(2):
        # A second start on the same routes says nothing twice.
        with client(handler) as function:
            document = function.get("/openapi.json").json()
            assert function.get("/openapi.json").json() == document
    return document


def keys(operation: Any) -> list[Any]:
    return [p for p in operation.get("parameters", []) if p["name"].lower() == "idempotency-key"]


def test_header_is_a_parameter_as_the_decorator_says(document: Any) -> None:
    paths = document["paths"]
    needed = paths["/inner/needed/{shop}"]["post"]
    assert [p["name"] for p in needed["parameters"]] == ["shop", "Idempotency-Key"]
    (key,) = keys(needed)
    assert (key["in"], key["required"], key["schema"]["maxLength"]) == ("header", True, 255)
    assert [k["required"] for k in keys(paths["/optional"]["put"])] == [False]
    assert keys(paths["/expression"]["post"]) == keys(paths["/plain"]["get"]) == []
    assert [k["name"] for k in keys(paths["/own"]["post"])] == ["idempotency-key"]


@pytest.mark.parametrize(
    ("path", "method"), [("/inner/needed/{shop}", "post"), ("/optional", "put"), ("/expression", "post")]
)
def test_refusals_are_problem_details(document: Any, path: str, method: str) -> None:
    responses = document["paths"][path][method]["responses"]
    usual = problem_responses(503)[503]["content"][PROBLEM]
    for status in ("422", "503", *(() if path == "/optional" else ("409",))):
        assert responses[status]["content"][PROBLEM] == usual
    assert document["paths"]["/optional"]["put"]["responses"]["409"] == {"description": "Sold out"}
    assert "409" not in document["paths"]["/plain"]["get"]["responses"]


def test_typed_handle_is_documented_too(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from faasbase import idempotent\n@idempotent()\nasync def handle(n: int) -> bytes:\n    return b''\n"
    with client(module_of(source, monkeypatch)) as function:
        operations = function.get("/openapi.json").json()["paths"]["/"]
        assert function.post("/?n=1").status_code == 400
    assert {method: len(keys(operation)) for method, operation in operations.items()} == {"get": 1, "post": 1}
