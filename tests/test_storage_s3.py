"""The store in a bucket: what goes over the wire, what lies there, and what is left of what did not succeed."""

from __future__ import annotations

import asyncio
import os
from base64 import b64decode
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx2
import pytest
from prometheus_client import REGISTRY

from faasbase.storage import ChecksumError, StorageError, Store, open_store
from faasbase.testing import captured_spans
from tests.servers_s3 import BUCKET, S3Server

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
PART = os.urandom(8 * MIB)
"""As much as goes in one request."""


@pytest.fixture
def prefix() -> str:
    return uuid4().hex


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the environment have them, as the usual chain finds them."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "app-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "app-secret")


@pytest.fixture
async def store(s3_server: S3Server, prefix: str) -> AsyncIterator[Store]:
    opened = open_store(s3_server.location(prefix))
    yield opened
    await opened.close()


async def stream(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def put_by_hand(server: S3Server, name: str, **arguments: Any) -> None:
    server.client().put_object(Bucket=BUCKET, Key=name, **arguments)


def requests(method: str) -> float:
    """Return how many requests of *method* were sent and answered well."""
    labels = {"method": method, "outcome": "ok"}
    return REGISTRY.get_sample_value("faas_storage_requests_total", labels) or 0.0


async def test_object_is_a_plain_one_of_its_own_name_and_bytes(store: Store, s3_server: S3Server, prefix: str) -> None:
    await store.put(b"hello", key="notes/a.txt", content_type="text/plain")
    found = s3_server.client().get_object(Bucket=BUCKET, Key=f"{prefix}/notes/a.txt")
    assert (found["Body"].read(), found["ContentType"]) == (b"hello", "text/plain")
    assert s3_server.names(prefix) == [f"{prefix}/notes/a.txt"]


async def test_same_content_is_not_sent_again(store: Store, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(b"same")
    await store.put(b"same")
    sent = requests("PutObject")
    await store.put(tmp_path / "upload")
    assert requests("PutObject") == sent


async def test_short_stream_is_one_request_and_a_long_one_is_sent_in_parts(store: Store) -> None:
    whole, parts = requests("PutObject"), requests("UploadPart")
    await store.put_stream("short", stream(PART[:-1], b"1"))
    assert (requests("PutObject") - whole, requests("UploadPart") - parts) == (1, 0)
    await store.put_stream("long", stream(PART, PART[:-1], b"12"))
    assert requests("UploadPart") - parts == 3


@pytest.mark.parametrize("source", ["bytes", "file", "stream"])
async def test_long_object_keeps_its_checksum(store: Store, tmp_path: Path, source: str) -> None:
    data = PART + PART + b"end"
    (tmp_path / "upload").write_bytes(data)
    if source == "stream":
        stored = await store.put_stream("a/b", stream(data[:5], data[5:]), content_type="video/mp4")
    else:
        content = data if source == "bytes" else tmp_path / "upload"
        stored = await store.put(content, key="a/b", content_type="video/mp4")
    assert (stored.size_bytes, stored.sha256) == (len(data), sha256(data).hexdigest())
    assert (await store.stat("a/b"), await store.get("a/b")) == (stored, data)
    assert [key async for key in store.list_keys()] == ["a/b"]


async def test_nothing_is_left_of_streams_that_were_replaced_or_deleted(
    store: Store, s3_server: S3Server, prefix: str
) -> None:
    for _ in range(2):
        await store.put_stream("a", stream(PART, b"1"))
    assert len(s3_server.names(prefix)) == 2
    await store.delete("a")
    assert s3_server.names(prefix) == []


@pytest.mark.parametrize("after_parts", [0, 1, 2, 4])
async def test_nothing_is_left_of_a_cancelled_stream(
    store: Store, s3_server: S3Server, prefix: str, after_parts: int
) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(after_parts):
            yield PART
        begun.set()
        yield PART
        await asyncio.sleep(60)

    putting = asyncio.create_task(store.put_stream("a", endless()))
    await asyncio.wait_for(begun.wait(), 30)
    putting.cancel()
    await asyncio.wait({putting}, timeout=30)
    assert putting.cancelled()
    assert (s3_server.names(prefix), s3_server.uploads(prefix)) == ([], [])


async def test_nothing_is_left_of_a_put_that_is_cancelled_at_any_moment(
    store: Store, s3_server: S3Server, prefix: str
) -> None:
    """Whole or not at all, and no upload that nobody completes."""
    data = PART + PART + b"1"
    for number in range(12):
        putting = asyncio.create_task(store.put_stream(f"a{number}", stream(data)))
        await asyncio.sleep(number * 0.03)
        putting.cancel()
        await asyncio.wait({putting}, timeout=30)
        if putting.cancelled() and await store.stat(f"a{number}") is not None:
            assert sha256(await store.get(f"a{number}")).digest() == sha256(data).digest()
        await store.delete(f"a{number}")
    assert (s3_server.names(prefix), s3_server.uploads(prefix)) == ([], [])


async def test_nothing_is_left_of_bytes_that_are_not_the_announced_ones(
    store: Store, s3_server: S3Server, prefix: str, tmp_path: Path
) -> None:
    """A file may be changed between the reading for its name and the reading for its content."""
    backend = store._backend
    for data in (b"short", PART + b"long"):
        (tmp_path / "upload").write_bytes(data)
        for source in (data, tmp_path / "upload"):
            with pytest.raises(ChecksumError):
                await backend.write("a", source, "text/plain", "0" * 64)
    assert (s3_server.names(prefix), s3_server.uploads(prefix)) == ([], [])


async def test_damaged_bytes_are_an_error(store: Store, s3_server: S3Server, prefix: str) -> None:
    put_by_hand(s3_server, f"{prefix}/a", Body=b"jello", Metadata={"sha256": sha256(b"hello").hexdigest()})
    with pytest.raises(ChecksumError):
        await store.get("a")
    with pytest.raises(ChecksumError):
        _ = [piece async for piece in store.open("a")]


async def test_damaged_stream_is_an_error(store: Store, s3_server: S3Server, prefix: str) -> None:
    await store.put_stream("a", stream(PART, b"1"))
    client, name = s3_server.client(), f"{prefix}/a"
    metadata = client.head_object(Bucket=BUCKET, Key=name)["Metadata"]
    put_by_hand(s3_server, name, Body=PART + b"2", Metadata=metadata)
    with pytest.raises(ChecksumError):
        await store.get("a")


@pytest.mark.parametrize("metadata", [{}, {"sha256": "what?"}, {"upload": "../a"}, {"upload": "0" * 32}])
async def test_object_of_somebody_else_is_read_unchecked(
    store: Store, s3_server: S3Server, prefix: str, metadata: dict[str, str]
) -> None:
    put_by_hand(s3_server, f"{prefix}/a", Body=b"hello", ContentType="text/plain", Metadata=metadata)
    stored = await store.stat("a")
    assert stored is not None
    assert (stored.sha256, stored.content_type, await store.get("a")) == ("", "text/plain", b"hello")
    await store.delete("a")


async def test_server_that_refuses_checksums_gets_none(s3_server: S3Server, prefix: str) -> None:
    store = open_store(s3_server.location(prefix, checksums="false"))
    await store.put(b"hello", key="a")
    await store.put_stream("b", stream(PART, b"1"))
    assert (await store.get("a"), await store.get("b")) == (b"hello", PART + b"1")
    await store.close()
    found = s3_server.client().head_object(Bucket=BUCKET, Key=f"{prefix}/a", ChecksumMode="ENABLED")
    assert [name for name in found if name.startswith("Checksum")] == []


async def test_checksum_of_what_is_sent_is_the_servers_too(store: Store, s3_server: S3Server, prefix: str) -> None:
    await store.put(b"hello", key="a")
    found = s3_server.client().head_object(Bucket=BUCKET, Key=f"{prefix}/a", ChecksumMode="ENABLED")
    assert b64decode(found["ChecksumSHA256"]) == sha256(b"hello").digest()


async def test_long_list_comes_in_pages(store: Store, s3_server: S3Server, prefix: str) -> None:
    client = s3_server.client()
    for number in range(1005):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{number:04}", Body=b"1")
    assert [key async for key in store.list_keys()] == [f"{number:04}" for number in range(1005)]


async def test_bucket_stands_in_the_hosts_name_where_that_is_asked_for(s3_server: S3Server, prefix: str) -> None:
    put_by_hand(s3_server, f"{prefix}/a", Body=b"hello")
    store = open_store(s3_server.location(prefix, path_style="false"))
    url = urlsplit(await store.url("a"))
    await store.close()
    assert (url.hostname, url.path) == (f"{BUCKET}.localhost", f"/{prefix}/a")
    # Not every machine knows the names below localhost.
    address = url._replace(netloc=f"127.0.0.1:{url.port}").geturl()
    async with httpx2.AsyncClient() as browser:
        assert (await browser.get(address, headers={"host": url.netloc})).content == b"hello"


async def test_addresses_are_of_the_servers_public_name(s3_server: S3Server) -> None:
    store = open_store(s3_server.location("p", public_endpoint="https://files.example.com"))
    urls = [await store.url("a"), await store.upload_url("a", size_bytes=1)]
    await store.close()
    assert {url.partition("?")[0] for url in urls} == {f"https://files.example.com/{BUCKET}/p/a"}


async def test_request_is_a_client_span_without_secrets(s3_server: S3Server, prefix: str) -> None:
    with captured_spans() as spans:
        store = open_store(s3_server.location(prefix))
        await store.put(b"hello", key="a")
        with pytest.raises(StorageError):
            await store.get("b")
        await store.close()
    put, _, get, _ = spans
    assert (put.name, put.kind.name, put.parent and put.parent.span_id) == (
        "S3.PutObject",
        "CLIENT",
        spans[1].context.span_id,
    )
    attributes = dict(put.attributes or {})
    assert attributes.pop("aws.request_id")
    assert attributes == {
        "rpc.system.name": "aws-api",
        "rpc.method": "S3/PutObject",
        "aws.s3.bucket": BUCKET,
        "aws.s3.key": f"{prefix}/a",
        "server.address": "localhost",
        "server.port": s3_server.port,
        "http.response.status_code": 200,
    }
    assert (get.name, get.status.status_code.name) == ("S3.GetObject", "ERROR")
    assert "app-secret" not in "".join(span.to_json() for span in spans)
