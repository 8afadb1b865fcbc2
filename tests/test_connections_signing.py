"""Who the shared connections are to the server: passwords that change under load, and certificates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
import trustme

from faasbase.connections import ConnectionsError, CredentialsError, RedisConnections, redis_connections
from faasbase.errors import SecretMissingError
from faasbase.secrets import use_directory
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

DEADLINE = 5.0
"""Long: nothing in these tests may depend on how busy the machine is."""


@pytest.fixture
def secrets(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "secrets"
    folder.mkdir()
    before = use_directory(folder)
    yield folder
    use_directory(before)


async def ask(connections: RedisConnections, *command: object) -> object:
    return await connections.execute(*command, deadline_seconds=DEADLINE)


async def test_new_password_is_taken_without_a_failed_command(tmp_path: Path, secrets: Path) -> None:
    with RedisServer(tmp_path / "redis", password="old-s3cret") as server:
        (secrets / "cache").write_text("old-s3cret\n")
        redis = redis_connections(f"{server.url}?username=app&password_secret=cache")
        assert await ask(redis, "PING") == b"PONG"
        server.set_passwords("old-s3cret", "new-s3cret")
        (secrets / "cache").write_text("new-s3cret\n")
        for turn in range(30):
            await ask(redis, "PING")
            await anyio.sleep(0.05)
            if turn == 20:
                server.set_passwords("new-s3cret")
                server.hang_up()
        server.set_passwords("other")
        server.hang_up()
        with pytest.raises(CredentialsError) as caught:
            await ask(redis, "PING")
        assert "s3cret" not in str(caught.value)
        (secrets / "cache").write_text("other")
        assert await ask(redis, "PING") == b"PONG"
        await redis.close()


async def test_file_ahead_of_the_server_fails_no_command(tmp_path: Path, secrets: Path) -> None:
    with RedisServer(tmp_path / "redis", password="old") as server:
        (secrets / "cache").write_text("old")
        redis = redis_connections(f"{server.url}?username=app&password_secret=cache")
        await ask(redis, "PING")
        (secrets / "cache").write_text("new")
        await anyio.sleep(0.6)
        assert [await ask(redis, "PING") for _ in range(3)] == [b"PONG"] * 3
        await redis.close()


async def test_tls_is_checked_against_the_certificates_of_a_secret(tmp_path: Path, secrets: Path) -> None:
    ours, other = trustme.CA(), trustme.CA()
    issued = ours.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    ours.cert_pem.write_to_path(secrets / "ours")
    other.cert_pem.write_to_path(secrets / "other")
    with RedisServer(tmp_path / "redis", tls=(certificate, key)) as server:
        redis = redis_connections(f"{server.url}?ca_secret=ours")
        assert await ask(redis, "PING") == b"PONG"
        await redis.close()
        redis = redis_connections(f"{server.url}?ca_secret=other")
        with pytest.raises(ConnectionsError):
            await ask(redis, "PING")
        await redis.close()


def test_missing_secret_stops_the_start_by_name(secrets: Path) -> None:
    with pytest.raises(SecretMissingError, match="cache-password"):
        redis_connections("redis://h?password_secret=cache-password")
