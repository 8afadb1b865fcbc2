"""The store in a folder: what lies there, and how the function serves it by signed addresses."""

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from faasbase.context import CallContext, enter_call
from faasbase.storage import ChecksumError, ObjectKeyError, StorageError, Store
from faasbase.storage.files import FileStore
from faasbase.storage.links import Links

pytestmark = pytest.mark.anyio


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
async def store(root: Path) -> AsyncIterator[Store]:
    opened = Store(FileStore(root))
    yield opened
    await opened.close()


@pytest.fixture
async def browser(store: Store) -> AsyncIterator[httpx2.AsyncClient]:
    assert store.asgi_app is not None
    transport = httpx2.ASGITransport(store.asgi_app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://function") as opened:
        yield opened


async def test_object_is_a_plain_file_of_its_own_bytes_and_owner(store: Store, root: Path) -> None:
    await store.put(b"hello", key="notes/a.txt")
    assert (root / "notes/a.txt").read_bytes() == b"hello"
    assert (root / "notes/a.txt").stat().st_mode & 0o077 == 0


async def test_nothing_waits_in_the_folder_after_writing_and_deleting(store: Store, root: Path) -> None:
    for number in range(3):
        await store.put(bytes(number), key="a/b")
    assert [len(files) for *_, files in os.walk(root / ".meta") if files] == [1]
    await store.delete("a/b")
    assert [path for path in root.rglob("*") if path.is_file()] == []  # noqa: ASYNC240
    assert not (root / "a").exists()


async def test_same_content_is_not_written_again(store: Store, root: Path) -> None:
    stored = await store.put(b"same")
    before = (root / stored.key).stat()
    await store.put(b"same")
    after = (root / stored.key).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


async def test_file_put_there_by_hand_is_described(store: Store, root: Path) -> None:
    root.mkdir()  # noqa: ASYNC240 - a folder of the test alone
    (root / "photo.png").write_bytes(b"pixels")
    stored = await store.stat("photo.png")
    assert stored is not None
    assert (stored.content_type, stored.size_bytes, await store.get("photo.png")) == ("image/png", 6, b"pixels")


async def test_damaged_bytes_are_an_error(store: Store, root: Path) -> None:
    await store.put(b"hello", key="a")
    status = (root / "a").stat()
    (root / "a").write_bytes(b"jello")
    os.utime(root / "a", ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ChecksumError):
        await store.get("a")
    with pytest.raises(ChecksumError):
        _ = [piece async for piece in store.open("a")]


async def test_link_out_of_the_folder_is_no_object(store: Store, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    root.mkdir()  # noqa: ASYNC240 - a folder of the test alone
    (root / "a").symlink_to(tmp_path / "secret")
    assert await store.stat("a") is None


async def test_key_below_an_object_is_refused(store: Store) -> None:
    await store.put(b"1", key="a")
    with pytest.raises(ObjectKeyError):
        await store.put(b"1", key="a/b")
    await store.put(b"1", key="c/d")
    with pytest.raises(ObjectKeyError):
        await store.put(b"1", key="c")
    assert await store.stat("a/b") is None


async def test_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "objects").write_bytes(b"a file")
    store = Store(FileStore(tmp_path / "objects"))
    with pytest.raises(StorageError) as caught:
        await store.put(b"1", key="a")
    assert (caught.value.operation, caught.value.key) == ("put", "a")
    await store.close()


async def test_signed_address_gives_the_object_and_keeps_browsers_safe(
    store: Store, browser: httpx2.AsyncClient
) -> None:
    stored = await store.put(b"<script>", key="ü b/100%.html", content_type="text/html")
    answer = await browser.get(await store.url(stored.key))
    assert (answer.status_code, answer.content) == (200, b"<script>")
    assert answer.headers["content-type"] == "text/html"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["etag"] == f'"{stored.sha256}"'
    assert answer.headers["content-length"] == "8"


async def test_head_has_the_headers_and_no_body(store: Store, browser: httpx2.AsyncClient) -> None:
    await store.put(b"hello", key="a", content_type="text/plain")
    answer = await browser.head(await store.url("a"))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "5")


@pytest.mark.parametrize("tags", ['"{0}"', 'W/"{0}"', '"other", "{0}"', "*"])
async def test_known_version_is_not_sent_again(store: Store, browser: httpx2.AsyncClient, tags: str) -> None:
    stored = await store.put(b"hello", key="a")
    answer = await browser.get(await store.url("a"), headers={"if-none-match": tags.format(stored.sha256)})
    assert (answer.status_code, answer.content) == (304, b"")


async def test_address_of_another_object_or_time_is_forbidden(store: Store, browser: httpx2.AsyncClient) -> None:
    await store.put(b"1", key="a")
    await store.put(b"2", key="b")
    url = urlsplit(await store.url("a"))
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    forged = [
        f"/_/objects/b?{url.query}",
        f"/_/objects/a?expires={int(query['expires']) + 1}&signature={query['signature']}",
        f"/_/objects/a?expires={query['expires']}&signature={'0' * 64}",
        f"/_/objects/a?expires={query['expires']}&signature=%ff",
        "/_/objects/a?expires=soon&signature=",
        "/_/objects/a",
        "/_/objects/../a?" + url.query,
        "/_/objects/.signing-key?" + url.query,
        "/_/objects/",
    ]
    answers = [await browser.get(address) for address in forged]
    assert {answer.status_code for answer in answers} == {403}
    assert answers[0].headers["content-type"] == "application/problem+json"
    assert answers[0].json()["status"] == 403


async def test_address_ends_when_its_time_is_over() -> None:
    now = [1000.0]
    links = Links(b"k" * 32, clock=lambda: now[0])
    query = parse_qs(urlsplit(links.path("a", 60)).query)
    expires, signature = query["expires"][0], query["signature"][0]
    assert links.seconds_left("a", expires, signature) == 60
    now[0] += 61
    assert links.seconds_left("a", expires, signature) is None


async def test_signed_address_of_nothing_is_not_found(store: Store, browser: httpx2.AsyncClient) -> None:
    answer = await browser.get(await store.url("not/there"))
    assert (answer.status_code, answer.json()["title"]) == (404, "Not Found")


async def test_objects_can_only_be_read_and_written(store: Store, browser: httpx2.AsyncClient) -> None:
    answer = await browser.post(await store.url("a"), content=b"1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, PUT")


async def test_address_for_reading_takes_nothing(store: Store, browser: httpx2.AsyncClient) -> None:
    answer = await browser.put(await store.url("a"), content=b"1")
    assert (answer.status_code, await store.stat("a")) == (403, None)


async def test_address_for_a_key_below_an_object_is_a_conflict(store: Store, browser: httpx2.AsyncClient) -> None:
    await store.put(b"1", key="a")
    url = await store.upload_url("a/b")
    answer = await browser.put(url, content=b"1", headers={"content-type": "application/octet-stream"})
    assert (answer.status_code, await store.get("a")) == (409, b"1")


async def test_keys_are_listed_in_the_order_of_their_bytes(store: Store) -> None:
    for key in ("b", "a/c", "a-b", "a/b/d", "ab", "é"):
        await store.put(b"1", key=key)
    assert [key async for key in store.list_keys()] == ["a-b", "a/b/d", "a/c", "ab", "b", "é"]


async def test_address_is_the_functions_public_one_inside_a_call(store: Store) -> None:
    headers = {b"host": b"gateway.example", b"x-forwarded-proto": b"https"}
    enter_call(CallContext("1", root_path="/function/images", raw_headers=headers))
    url = await store.url("a", expires_seconds=60)
    assert url.startswith("https://gateway.example/function/images/_/objects/a?expires=")
    assert abs(int(parse_qs(urlsplit(url).query)["expires"][0]) - time.time() - 60) < 5


def test_processes_that_start_at_once_share_one_signing_key(root: Path) -> None:
    script = "import sys; from pathlib import Path; from faasbase.storage.links import load_signing_key as load; "
    script += "sys.stdin.read(1); print(load(Path(sys.argv[1])).hex())"
    command = [sys.executable, "-c", script, str(root)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(4)]
    keys = {process.communicate(b".", timeout=30)[0] for process in processes}
    assert len(keys) == 1
    assert len(keys.pop().strip()) == 64
    assert (root / ".signing-key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in root.iterdir()] == [".signing-key"]
