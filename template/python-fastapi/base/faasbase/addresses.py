"""Put into a request where its caller thinks the function is, which the gateway has taken out of it."""

from __future__ import annotations

from typing import Any

from .context import CallContext

Scope = dict[str, Any]


def enter_root_path(scope: Scope, prefix: str) -> None:
    """Put the gateway's *prefix* back, in root_path and path both: a mount would be 404 with root_path alone."""
    if not prefix:
        return
    scope["root_path"] = prefix
    if not scope["path"].startswith(f"{prefix}/"):
        scope["path"] = prefix + scope["path"]
        if "raw_path" in scope:
            scope["raw_path"] = prefix.encode("utf-8") + scope["raw_path"]


def enter_public_host(scope: Scope, call: CallContext) -> None:
    """Let `request.url_for` name the host that the caller knows; the one in `Host` is the gateway's word for us."""
    if call.host is not None:
        others = [header for header in scope["headers"] if header[0] != b"host"]
        scope["headers"] = [*others, (b"host", call.host)]
        scope["scheme"] = {"http": call.scheme, "websocket": "wss" if call.scheme == "https" else "ws"}[scope["type"]]
