"""
What tests of functions import: a client that runs start-up and shut-down, captured spans, back ends in memory.

    from faasbase.testing import client
    from . import handler

    def test_greets_by_name():
        with client(handler) as function:
            assert function.post("/", json={"name": "Ada"}).json() == {"message": "Hello, Ada!"}
"""

from __future__ import annotations

import json
import sys
import tempfile
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json, to_jsonable_python

from .app import build_app, resources
from .context import new_call_id
from .credentials import read_credential
from .event_policy import EventsPolicy
from .lifecycle import Lifecycle
from .loading import handler_of
from .secret_files import secret_name
from .secrets import use_directory
from .settings import Settings
from .signing import headers_of

try:
    from starlette.testclient import TestClient
except (ImportError, RuntimeError) as exc:
    raise ImportError("the test client needs faasbase[testing]") from exc

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from starlette.types import Receive, Scope, Send

    from .events import Event
    from .events.memory_broker import MemoryBroker

__all__ = ["FunctionClient", "captured_spans", "client", "memory_backends", "signed"]


@contextmanager
def client(
    handler: ModuleType, *, secrets: Mapping[str, str] | None = None, **settings: Any
) -> Iterator[FunctionClient]:
    """
    Run the function of the module *handler* and give a client of it; on leaving, the function is shut down.

    The whole app is in between, with context, limits and problem details.  Cache and storage are in memory and in a
    folder that goes at the end, records of `@idempotent` in memory, or on the Redis of *cache_url*; *secrets* are the
    function's, by name; *settings* are fields of `faasbase.settings.Settings`.

    Raises:
        StartError: The function would not start; it asks for a secret that is not among *secrets*, for one.
    """
    with tempfile.TemporaryDirectory() as folder, _secrets_in(Path(folder) / "secrets", secrets or {}) as secrets_dir:
        storage_url = f"file://{folder}/objects"
        on_redis = str(settings.get("cache_url")).partition(":")[0] in ("redis", "rediss")
        defaults = Settings(
            idempotency_url="" if on_redis else "memory://",
            storage_url=storage_url,
            secrets_dir=secrets_dir,
            events=EventsPolicy(http_public=True, publish_url="memory://published"),
            access_log=False,
        )
        chosen = replace(defaults, **settings)
        use_directory(chosen.secrets_dir)
        lifecycle = Lifecycle()
        lifecycle.listening = lifecycle.started = True
        app = _Running(build_app(handler_of(handler), chosen, lifecycle), chosen)
        with FunctionClient(app, raise_server_exceptions=False) as running:
            yield running


def signed(body: Any, key: str, *, message_id: str | None = None, sent_at: float | None = None) -> dict[str, Any]:
    """
    Return what a client's ``post`` takes to send *body* signed with *key*: ``post("/", **signed(order, key))``.

    *body* is bytes, a model, or anything that becomes JSON; *sent_at* is in seconds since 1970, by default now.
    """
    content = body if isinstance(body, bytes) else json.dumps(to_jsonable_python(body)).encode("utf-8")
    headers = headers_of(content, [read_credential("test", key)], message_id=message_id, sent_at=sent_at)
    if not isinstance(body, bytes):
        headers["content-type"] = "application/json"
    return {"content": content, "headers": headers}


@contextmanager
def captured_spans() -> Iterator[Sequence[ReadableSpan]]:
    """
    Collect the spans that end inside the block; build the client inside it, since an app is instrumented when built.

    Raises:
        MissingExtraError: ``faasbase[otel]`` is not installed.
    """
    from . import tracing
    from .errors import missing_extra

    try:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
    except ModuleNotFoundError as exc:
        raise missing_extra(exc, "opentelemetry", "otel") from exc
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use_provider(provider)
    try:
        yield _Spans(exporter)
    finally:
        tracing.use_provider(None)
        provider.shutdown()


@asynccontextmanager
async def memory_backends() -> AsyncIterator[None]:
    """Give cached functions and stores an empty cache in memory and an empty folder, for tests without a client."""
    with tempfile.TemporaryDirectory() as folder:
        async with resources(Settings(idempotency_url="memory://", storage_url=f"file://{folder}")):
            yield


@contextmanager
def _secrets_in(folder: Path, secrets: Mapping[str, str]) -> Iterator[Path]:
    folder.mkdir()
    for name, value in secrets.items():
        (folder / secret_name(name)).write_text(value, encoding="utf-8")
    before = use_directory(folder)
    try:
        yield folder
    finally:
        use_directory(before)


class FunctionClient(TestClient):
    """A client of a function, which also brings it events and shows those that it has published."""

    @property
    def published(self) -> list[Event[Any]]:
        """The events that the function has published so far, the oldest first."""
        broker: MemoryBroker | None = self.app.broker  # type: ignore[attr-defined]
        return [message.event() for message in broker.published] if broker is not None else []

    def publish_event(self, event_type: str, data: Any = None, **attributes: str) -> Any:
        """
        Bring the function an event, and return the answer: 204 it is settled, 503 it is to come again, 4xx given up.

        *data* is bytes, a model, or what else becomes JSON; *attributes* are id, source, subject, time and extensions.
        """
        content = {"data_base64": b64encode(data).decode("ascii")} if isinstance(data, bytes) else {"data": data}
        event = {"specversion": "1.0", "id": new_call_id(), "source": "/test", "type": event_type, **content}
        headers = {"content-type": "application/cloudevents+json"}
        return self.post("/", content=to_json({**event, **attributes}), headers=headers)


class _Running:
    """The app with its resources open from start-up to shut-down."""

    def __init__(self, app: Any, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self.broker: MemoryBroker | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            async with resources(self._settings):
                if "faasbase.events" in sys.modules:
                    from .events.memory_broker import memory_broker

                    self.broker = memory_broker()
                await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class _Spans(Sequence["ReadableSpan"]):
    """The spans so far, oldest first: a view that grows while the block runs."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter

    def __getitem__(self, index: Any) -> Any:
        return self._exporter.get_finished_spans()[index]

    def __len__(self) -> int:
        return len(self._exporter.get_finished_spans())
