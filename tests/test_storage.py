"""What holds for every store, whichever back end is behind it."""

import asyncio
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import anyio
import anyio.lowlevel
import httpx2
import pytest

from faasbase.errors import SettingError
from faasbase.storage import (
    ObjectKeyError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    Store,
    StoredObject,
    activate_store,
    current_store,
    open_store,
)
from tests.servers_s3 import S3Server

pytestmark = pytest.mark.anyio

BACKENDS = ("file", "s3")
"""The contract below runs on all of them."""

LARGE = bytes(range(256)) * 4096


@pytest.fixture(params=BACKENDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    """Give a store in an empty place."""
    url = f"file://{tmp_path}/objects"
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "app-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "app-secret")
        url = server.location(uuid4().hex)
    opened = open_store(url)
    yield opened
    await opened.close()


@pytest.fixture
async def browser(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    """Give what follows the addresses of objects: the function's own, or those of the store."""
    transport = httpx2.ASGITransport(store.asgi_app) if store.asgi_app else None
    async with httpx2.AsyncClient(transport=transport, base_url="http://function") as opened:
        yield opened


async def chunks(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        await anyio.lowlevel.checkpoint()
        yield piece


async def keys(store: Store, prefix: str = "") -> list[str]:
    return [stored.key async for stored in store.list(prefix)]


async def test_bytes_come_back_with_their_description(store: Store) -> None:
    stored = await store.put(b"hello", key="notes/a.txt", content_type="text/plain; charset=utf-8")
    assert stored == StoredObject("notes/a.txt", 5, "text/plain; charset=utf-8", sha256(b"hello").hexdigest())
    assert await store.stat("notes/a.txt") == stored
    assert await store.get("notes/a.txt") == b"hello"


async def test_empty_object_is_an_object(store: Store) -> None:
    await store.put(b"", key="empty")
    await store.put_stream("empty-too", chunks())
    assert [await store.get("empty"), await store.get("empty-too")] == [b"", b""]


async def test_large_object_is_read_piece_by_piece(store: Store) -> None:
    await store.put(LARGE, key="large")
    pieces = [piece async for piece in store.open("large")]
    assert len(pieces) > 1
    assert b"".join(pieces) == LARGE


async def test_file_is_stored_by_its_content(store: Store, tmp_path: Path) -> None:
    (tmp_path / "upload").write_bytes(LARGE)
    stored = await store.put(tmp_path / "upload", content_type="image/png")
    assert stored.sha256 in stored.key
    assert await store.get(stored.key) == LARGE


async def test_equal_bytes_have_one_key_and_the_last_content_type(store: Store) -> None:
    first = await store.put(b"same", content_type="text/plain")
    again = await store.put(b"same", content_type="text/plain")
    other = await store.put(b"same", content_type="text/html")
    assert (again, other.key) == (first, first.key)
    assert await store.stat(first.key) == other


async def test_stream_is_stored_in_order(store: Store) -> None:
    stored = await store.put_stream("stream", chunks(b"a", LARGE, b"z"), content_type="video/mp4")
    assert (stored.size_bytes, stored.content_type) == (len(LARGE) + 2, "video/mp4")
    assert await store.get("stream") == b"a" + LARGE + b"z"


async def test_failed_stream_leaves_what_was_there(store: Store) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield LARGE
        raise ConnectionError("the sender went away")

    await store.put(b"before", key="stream")
    with pytest.raises(ConnectionError):
        await store.put_stream("stream", broken())
    assert (await store.get("stream"), await keys(store)) == (b"before", ["stream"])


async def test_cancelled_stream_leaves_nothing(store: Store) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield LARGE
            begun.set()
            await anyio.sleep(0.001)

    putting = asyncio.create_task(store.put_stream("stream", endless()))
    await asyncio.wait_for(begun.wait(), 5)
    putting.cancel()
    await asyncio.wait({putting}, timeout=5)
    assert (putting.cancelled(), await store.stat("stream"), await keys(store)) == (True, None, [])


async def test_later_object_takes_the_place_of_the_earlier(store: Store) -> None:
    await store.put(b"1", key="a", content_type="text/plain")
    await store.put(b"22", key="a", content_type="text/html")
    stored = await store.stat("a")
    assert stored is not None
    assert (await store.get("a"), stored.size_bytes, stored.content_type) == (b"22", 2, "text/html")


async def test_reader_keeps_the_version_that_it_opened(store: Store) -> None:
    await store.put(LARGE, key="a")
    pieces = store.open("a")
    read = await anext(pieces)
    await store.put(b"new", key="a")
    async for piece in pieces:
        read += piece
    assert (read, await store.get("a")) == (LARGE, b"new")


async def test_missing_object_says_which(store: Store) -> None:
    assert await store.stat("not/there") is None
    with pytest.raises(ObjectNotFoundError) as caught:
        await store.get("not/there")
    assert caught.value.key == "not/there"
    with pytest.raises(ObjectNotFoundError):
        await anext(store.open("not/there"))


async def test_object_over_the_limit_is_not_taken_into_memory(store: Store) -> None:
    await store.put(b"12345", key="a")
    with pytest.raises(ObjectTooLargeError) as caught:
        await store.get("a", max_bytes=4)
    assert (caught.value.size_bytes, caught.value.max_bytes) == (5, 4)


async def test_deleted_object_is_gone_and_deleting_again_is_harmless(store: Store) -> None:
    await store.put(b"1", key="a/b")
    await store.delete("a/b")
    await store.delete("a/b")
    assert (await store.stat("a/b"), await keys(store)) == (None, [])


async def test_keys_are_listed_by_prefix(store: Store) -> None:
    for key in ("b", "a/c", "a-b", "a/b/d", "ab", "é"):
        await store.put(b"1", key=key)
    # SeaweedFS, unlike S3 itself, lists folder by folder.
    assert sorted(await keys(store)) == ["a-b", "a/b/d", "a/c", "ab", "b", "é"]
    assert await keys(store, "a/") == ["a/b/d", "a/c"]
    assert sorted(await keys(store, "a")) == ["a-b", "a/b/d", "a/c", "ab"]
    assert await keys(store, "a/b") == ["a/b/d"]
    assert await keys(store, "none/") == []
    assert [key async for key in store.list_keys()] == await keys(store)


async def test_listed_objects_are_described(store: Store) -> None:
    stored = [await store.put(b"1" * size, key=f"a/{size}", content_type="text/plain") for size in range(1, 30)]
    assert sorted([each async for each in store.list("a/")], key=lambda each: each.size_bytes) == stored


async def test_address_gives_the_object_to_anyone(store: Store, browser: httpx2.AsyncClient) -> None:
    await store.put(b"hello", key="ü b/100%.txt", content_type="text/plain")
    answer = await browser.get(await store.url("ü b/100%.txt", expires_seconds=60))
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, b"hello", "text/plain")


async def test_address_takes_an_object_of_its_type_and_size_from_anyone(
    store: Store, browser: httpx2.AsyncClient
) -> None:
    url = await store.upload_url("ü b/100%.png", content_type="image/png", size_bytes=5, expires_seconds=60)
    refused = [
        await browser.put(url, content=b"12345", headers={"content-type": "text/html"}),
        await browser.put(url, content=b"123456", headers={"content-type": "image/png"}),
        await browser.put(url.replace("100", "200"), content=b"12345", headers={"content-type": "image/png"}),
        await browser.get(url),
    ]
    assert [answer.status_code for answer in refused] == [403] * 4
    assert await store.stat("ü b/100%.png") is None
    taken = await browser.put(url, content=b"12345", headers={"content-type": "image/png"})
    stored = await store.stat("ü b/100%.png")
    assert stored is not None
    assert (taken.status_code, stored.size_bytes, stored.content_type) == (200, 5, "image/png")
    assert await store.get("ü b/100%.png") == b"12345"


async def test_address_takes_any_size_unless_one_is_given(store: Store, browser: httpx2.AsyncClient) -> None:
    url = await store.upload_url("a")
    answer = await browser.put(url, content=LARGE, headers={"content-type": "application/octet-stream"})
    assert (answer.status_code, await store.get("a")) == (200, LARGE)


async def test_empty_store_lists_nothing(store: Store) -> None:
    assert await keys(store) == []


@pytest.mark.parametrize(
    "key",
    [
        *("", "/etc/passwd", "../up", "a/../b", "a/./b", "a//b", "a/", ".hidden", "a/.b", "a\\b", "a\0b", "a\nb"),
        *("x" * 201, "/".join(["x" * 100] * 6), "\ud800", ".signing-key", ".meta/a"),
    ],
)
async def test_unsafe_key_is_refused_by_every_operation(store: Store, key: str) -> None:
    with pytest.raises(ObjectKeyError):
        await store.put(b"1", key=key)
    with pytest.raises(ObjectKeyError):
        await store.put_stream(key, chunks(b"1"))
    with pytest.raises(ObjectKeyError):
        await store.get(key)
    with pytest.raises(ObjectKeyError):
        await store.url(key)
    with pytest.raises(ObjectKeyError):
        await store.upload_url(key)


async def test_content_type_that_could_split_headers_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="image/png"):
        await store.put(b"1", key="a", content_type="text/html\r\nset-cookie: a=b")


async def test_address_must_expire_within_a_week(store: Store) -> None:
    for seconds in (0, -1, 8 * 24 * 3600):
        with pytest.raises(ValueError, match="seven days"):
            await store.url("a", expires_seconds=seconds)
        with pytest.raises(ValueError, match="seven days"):
            await store.upload_url("a", expires_seconds=seconds)


async def test_writers_at_once_leave_one_whole_object(store: Store) -> None:
    versions = [bytes([number]) * (1000 + number) for number in range(20)]
    await asyncio.gather(*(store.put(version, key="a/b") for version in versions))
    data, stored = await store.get("a/b"), await store.stat("a/b")
    assert data in versions
    assert stored is not None
    assert stored.sha256 == sha256(data).hexdigest()


def test_active_store_is_the_last_one_activated(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="activate_store"):
        current_store()
    store = open_store(f"file://{tmp_path}")
    with activate_store(store):
        assert current_store() is store


@pytest.mark.parametrize("url", ["", "s4://:s3cret@host", "file:relative", "file://host/s3cret", "file:///a?s3cret=1"])
def test_unusable_url_stops_the_start_and_is_not_shown(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        open_store(url)
    assert caught.value.name == "STORAGE_URL"
    assert "s3cret" not in str(caught.value)
