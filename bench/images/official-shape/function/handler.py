"""Greet, as the function that ``faas-cli new --lang python-fastapi`` hands out does."""

from __future__ import annotations

import json
from typing import Any


def handle(event: Any, context: Any) -> dict[str, Any]:
    name = json.loads(event.body or b"{}").get("name", "world")
    return {"statusCode": 200, "body": {"message": f"Hello, {name}!"}}
