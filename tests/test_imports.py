"""What a start imports: nothing that the function did not ask for."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.otlp_sink import otlp_sink
from tests.processes import run_function
from tests.staging import BASE, TEMPLATE
from tests.wire import call

pytestmark = pytest.mark.anyio

HEAVY = ("redis", "boto3", "botocore", "aioboto3", "aiokafka", "nats", "PIL", "opentelemetry.sdk", "httpx2", "requests")
# Appended to the template's own handler; it tells when it is called, so that all of the start is in it.
TELL = """

import sys as _sys
from fastapi import Response as _Response

_typed = handle


async def handle() -> _Response:
    import json
    return _Response(json.dumps(sorted(_sys.modules)))
"""


async def imported(**env: str) -> list[str]:
    """Return the modules of a started function made from the template's own handler."""
    source = (TEMPLATE / "function" / "handler.py").read_text() + TELL
    async with run_function(source, **env) as function:
        modules: list[str] = json.loads((await call(function.port, "/")).body)
    return modules


def of(libraries: tuple[str, ...], modules: list[str]) -> list[str]:
    """Return the *modules* that belong to *libraries*."""
    return [m for m in modules if any(m == lib or m.startswith(f"{lib}.") for lib in libraries)]


async def test_defaults_import_no_broker_no_cloud_and_no_sdk() -> None:
    """The template's function with the template's settings."""
    modules = await imported()
    assert of(HEAVY, modules) == []
    assert "fastapi" in modules


async def test_unused_parts_of_the_base_are_not_imported() -> None:
    """Neither the classic form, nor event transports, nor records of operations, nor what tests use."""
    modules = await imported()
    unused = ("faasbase.classic", "faasbase.testing", "faasbase.export", "faasbase.idempotency", "websockets")
    assert of(unused, modules) == []


async def test_endpoint_brings_the_sdk() -> None:
    """Tracing is imported when it is switched on, and nothing else with it."""
    with otlp_sink() as sink:
        modules = await imported(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url)
    assert "opentelemetry.sdk.trace" in modules
    assert of(("redis", "boto3", "aiokafka", "nats", "PIL"), modules) == []


def test_nats_comes_without_what_it_needs_for_websockets_only() -> None:
    """aiohttp, which the base has for S3, costs a start more than all of NATS."""
    program = "import sys, faasbase.events.nats; print('aiohttp' in sys.modules, 'nats.aio.client' in sys.modules)"
    environ = {**os.environ, "PYTHONPATH": str(BASE)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert run.stdout.split() == ["False", "True"]
