"""The store in a bucket when the connection breaks, the server is busy or gone, or the caller goes away."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest

from faasbase.storage import ObjectChangedError, StorageError, Store, StoreUnavailableError, open_store
from tests.processes import run_function
from tests.proxies import AnswersProxy
from tests.servers_s3 import BUCKET, S3Server
from tests.wire import call

pytestmark = pytest.mark.anyio

LARGE = os.urandom(4 * 1024 * 1024)


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment have them, as the usual chain finds them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "app-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "app-secret")


@pytest.fixture
def prefix() -> str:
    return uuid4().hex


@pytest.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[AnswersProxy]:
    opened = AnswersProxy(s3_server.port)
    async with opened.running():
        yield opened


@pytest.fixture
async def store(s3_server: S3Server, proxy: AnswersProxy, prefix: str) -> AsyncIterator[Store]:
    """Give a store behind the proxy."""
    opened = open_store(s3_server.location(prefix, endpoint=proxy.url, timeout="2s"))
    # The library is imported, and does not count in what follows.
    await opened.put(LARGE, key="large")
    yield opened
    await opened.close()


async def test_busy_server_is_asked_again(store: Store, proxy: AnswersProxy) -> None:
    proxy.hang_up()
    proxy.refuse = 2
    stored = await store.put(b"hello", key="a")
    assert (await store.get("a"), proxy.refuse, stored.size_bytes) == (b"hello", 0, 5)


async def test_busy_server_is_an_error_when_the_time_is_over(
    store: Store, proxy: AnswersProxy, caplog: pytest.LogCaptureFixture
) -> None:
    proxy.hang_up()
    proxy.refuse = 1000
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="SlowDown") as caught:
            await store.put(b"hello", key="a")
    assert (caught.value.operation, caught.value.key, time.monotonic() - began < 20) == ("put", "a", True)
    proxy.refuse = 0
    with caplog.at_level(logging.INFO):
        await store.put(b"hello", key="a")
    told = [(record.levelname, record.getMessage()) for record in caplog.records if record.name == "faasbase.storage"]
    assert told == [
        ("ERROR", "storage: the store is not available (SlowDown)"),
        ("INFO", "storage: the store answers again"),
    ]


async def test_server_that_does_not_answer_costs_its_time_and_no_more(store: Store, proxy: AnswersProxy) -> None:
    proxy.hang()
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="timeout"):
        await store.stat("a")
    assert 1.5 < time.monotonic() - began < 10
    proxy.hang(False)
    assert await store.stat("a") is None


async def test_reading_goes_on_where_the_connection_broke(store: Store, proxy: AnswersProxy) -> None:
    proxy.hang_up()
    proxy.cut_after = [1_000_000, 1_000_000, 500]
    assert b"".join([piece async for piece in store.open("large")]) == LARGE
    assert proxy.cut_after == []


async def test_reading_does_not_go_on_with_another_version(store: Store, proxy: AnswersProxy) -> None:
    proxy.hang_up()
    proxy.cut_after = [1_000_000]
    pieces = store.open("large")
    await anext(pieces)
    await store.put(LARGE[::-1], key="large")
    with pytest.raises(ObjectChangedError):
        _ = [piece async for piece in pieces]


@pytest.mark.parametrize(("request_", "left"), [(b"?uploads", []), (b"<CompleteMultipartUpload", ["a"])])
async def test_put_that_is_cancelled_while_an_answer_is_awaited_leaves_no_upload(
    store: Store, proxy: AnswersProxy, s3_server: S3Server, prefix: str, request_: bytes, left: list[str]
) -> None:
    """What has been begun, or completed, is known before the caller goes."""
    await store.delete("large")
    proxy.hang_after = request_
    putting = asyncio.create_task(store.put_stream("a", pieces(LARGE, LARGE, LARGE)))
    while not proxy.hanging:
        await asyncio.wait({putting}, timeout=0.02)
    await asyncio.sleep(0.3)
    putting.cancel()
    await asyncio.sleep(0.1)
    proxy.hang(False)
    await asyncio.wait({putting}, timeout=30)
    assert putting.cancelled()
    assert ([key async for key in store.list_keys()], s3_server.uploads(prefix)) == (left, [])
    if left:
        stored = await store.stat("a")
        assert stored is not None
        assert stored.sha256 == sha256(LARGE * 3).hexdigest()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_reader_who_stops_early_gives_the_connection_back(store: Store, proxy: AnswersProxy) -> None:
    for _ in range(3):
        pieces = store.open("large")
        await anext(pieces)
        await pieces.aclose()  # type: ignore[attr-defined]
    until = time.monotonic() + 5
    while proxy.open_connections > 1:
        assert time.monotonic() < until
        await asyncio.sleep(0.05)


async def test_missing_bucket_is_told(s3_server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(s3_server.location(bucket="not-there"))
    for _ in range(2):
        with pytest.raises(StorageError, match="the bucket 'not-there' does not exist"):
            await store.get("a")
    await store.close()
    assert len([record for record in caplog.records if record.name == "faasbase.storage"]) == 1


HANDLER = """
import sys
from faasbase import StoreDep

async def handle(store: StoreDep, key: str | None = None) -> str:
    if key is None:
        return str("botocore" in sys.modules)
    return (await store.get(key)).decode()
"""


@pytest.mark.parametrize("warm", ["false", "true"])
async def test_function_is_ready_while_its_store_is_not_there(tmp_path: Path, warm: str) -> None:
    (tmp_path / "s3-access-key").write_text("app-key")
    (tmp_path / "s3-secret-key").write_text("app-secret")
    url = f"s3://{BUCKET}?endpoint=http://127.0.0.1:1&timeout=1s&warm={warm}"
    url += "&access_key_secret=s3-access-key&secret_key_secret=s3-secret-key"
    async with run_function(HANDLER, STORAGE_URL=url, FAAS_SECRETS_DIR=str(tmp_path)) as function:
        await function.ready()
        assert await eventually_imported(function.port) == (warm == "true")
        answer = await call(function.port, "/?key=a")
        assert (answer.status, dict(answer.headers)["retry-after"]) == (503, "5")
        assert b"not available" in answer.body
        assert b"app-secret" not in answer.body
        await function.log_line("the store is not available")
        assert "app-secret" not in function.output()
        assert function.answers("/_/ready")


async def eventually_imported(port: int) -> bool:
    """Tell whether the library gets imported without a request to the store."""
    for _ in range(20):
        if b"True" in (await call(port, "/")).body:
            return True
        await asyncio.sleep(0.05)
    return False
