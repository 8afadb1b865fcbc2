"""The store in a bucket: its credentials, its certificate, and the URL that names them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trustme

from faasbase.errors import SecretMissingError, SettingError
from faasbase.secrets import Secret, use_directory
from faasbase.storage import StoreDeniedError, StoreUnavailableError, open_store
from faasbase.storage.s3_credentials import S3Credentials
from tests.servers_s3 import Pair, S3Server

pytestmark = pytest.mark.anyio

OLD, NEW = ("app-key", "app-secret"), ("another-key", "an0ther-s3cret")
SECRETS = {"access_key_secret": "s3-access-key", "secret_key_secret": "s3-secret-key"}
MIB = b"1" * 1024 * 1024


@pytest.fixture(autouse=True)
def secrets(tmp_path: Path) -> Iterator[Path]:
    """Give the folder of secrets, with the pair that the server takes."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    before = use_directory(folder)
    write_pair(folder, OLD)
    yield folder
    use_directory(before)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[S3Server]:
    """Give a server that no other test uses."""
    with S3Server(tmp_path / "s3", OLD) as server:
        yield server


def write_pair(folder: Path, pair: Pair) -> None:
    for name, text in zip(SECRETS.values(), pair, strict=True):
        write_secret(folder, name, text)


def write_secret(folder: Path, name: str, text: str) -> None:
    new = folder / f".{name}"
    new.write_text(text)
    new.replace(folder / name)


async def test_refused_credentials_are_told_and_not_shown(
    s3_server: S3Server, secrets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_pair(secrets, ("an0ther-key", "an0ther-s3cret"))
    store = open_store(s3_server.location(**SECRETS))
    for operation in (store.get("a"), store.stat("a"), store.put(b"1")):
        with pytest.raises(StoreDeniedError) as caught:
            await operation
        assert "an0ther" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"
    await store.close()
    assert "an0ther" not in caplog.text


async def test_no_credentials_at_all_are_told(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    store = open_store(s3_server.location())
    with pytest.raises(StoreDeniedError, match="there are no credentials"):
        await store.get("a")
    await store.close()


async def test_credentials_are_replaced_under_load_without_a_failed_call(own_server: S3Server, secrets: Path) -> None:
    """The files change one after the other, and the server learns of the new pair after the first has changed."""
    store = open_store(own_server.location(**SECRETS))
    await store.put(b"old", key="a")
    done, stopping = 0, asyncio.Event()

    async def work(number: int) -> None:
        nonlocal done
        while not stopping.is_set():
            await store.put(b"%d" % done, key=f"a{number}")
            await store.get(f"a{number}")
            done += 1

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(work(number))
        await asyncio.sleep(0.3)
        write_secret(secrets, "s3-access-key", NEW[0])
        await asyncio.sleep(0.5)
        write_secret(secrets, "s3-secret-key", NEW[1])
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_server.set_pairs, OLD, NEW)
        before = done
        await asyncio.sleep(0.5)
        stopping.set()
    assert done > before
    # The pair that was refused at first is tried again when the old one is, at the latest.
    await asyncio.to_thread(own_server.set_pairs, NEW)
    for _ in range(3):
        await store.put(b"new", key="a")
    await store.close()


def test_refused_pair_gives_way_to_the_one_that_worked_and_is_tried_again(secrets: Path) -> None:
    now = [0.0]
    chosen = S3Credentials(Secret("s3-access-key"), Secret("s3-secret-key"), clock=lambda: now[0])
    old = chosen.current()
    chosen.accepted(old)
    write_pair(secrets, NEW)
    new = chosen.current()
    assert (new != old, chosen.refused(new), chosen.current()) == (True, True, old)
    now[0] += 11
    assert chosen.current() == new
    chosen.accepted(new)
    # A pair that is the only one is tried, whatever was said of it.
    assert (chosen.refused(new), chosen.current()) == (False, new)
    assert NEW[1] not in repr(new)


async def test_certificate_of_an_own_authority_is_trusted_and_others_are_not(tmp_path: Path, secrets: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    other.cert_pem.write_to_path(secrets / "ca")
    tls = (tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "ca.pem")
    with S3Server(tmp_path / "s3", OLD, tls=tls) as server:
        unsure, sure = open_store(server.location(**SECRETS)), open_store(server.location(**SECRETS, ca_secret="ca"))
        for store in (unsure, sure):
            with pytest.raises(StoreUnavailableError, match="certificate"):
                await store.put(b"hello", key="a")
        write_secret(secrets, "ca", authority.cert_pem.bytes().decode())
        misnamed = open_store(server.location(**SECRETS, ca_secret="ca", endpoint=f"https://127.0.0.1:{server.port}"))
        with pytest.raises(StoreUnavailableError, match="certificate"):
            await misnamed.put(b"hello", key="a")
        await misnamed.close()
        await sure.put_stream("a", pieces(*[MIB] * 9))
        assert await sure.get("a") == MIB * 9
        await sure.close()
        await unsure.close()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


@pytest.mark.parametrize(
    "url",
    [
        *(
            "s3://",
            "s3:bucket",
            "s3://an0ther:s3cret@bucket",
            "s3://Bucket",
            "s3://b",
            "s3://bucket:80",
            "s3://bucket#a",
        ),
        *(
            "s3://bucket/../a",
            "s3://bucket/a//b",
            "s3://bucket/.a",
            f"s3://bucket/{'a/' * 150}",
            "s3://bucket?s3cret=1",
        ),
        *(
            "s3://bucket?region=",
            "s3://bucket?region=a&region=b",
            "s3://bucket?region=s3cret/",
            "s3://bucket?timeout=0s",
        ),
        *("s3://bucket?timeout=s3cret", "s3://bucket?timeout=2h", "s3://bucket?path_style=s3cret"),
        *("s3://bucket?endpoint=s3cret", "s3://bucket?endpoint=ftp://a", "s3://bucket?endpoint=http://u:s3cret@a"),
        *("s3://bucket?endpoint=http://a:99999", "s3://bucket?public_endpoint=s3cret"),
        *("s3://bucket?access_key_secret=s3-access-key", "s3://bucket?ca_secret=../s3cret"),
    ],
)
def test_unusable_url_stops_the_start_and_is_not_shown(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        open_store(url)
    assert caught.value.name == "STORAGE_URL"
    assert "s3cret" not in str(caught.value)


def test_missing_secret_stops_the_start_by_name(secrets: Path) -> None:
    (secrets / "s3-secret-key").unlink()
    with pytest.raises(SecretMissingError, match="s3-secret-key"):
        open_store("s3://bucket?access_key_secret=s3-access-key&secret_key_secret=s3-secret-key")
