"""The NATS that tests and ``make up BROKERS=1`` start: its life, its streams and those it refuses."""

from __future__ import annotations

import base64
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
import trustme
from nacl.signing import SigningKey
from nats.aio.client import Client
from nats.errors import Error

from deploy.brokers.nats import NatsServer
from tests.servers_kafka import new_name
from tests.servers_nats import Nkey, Operator

pytestmark = pytest.mark.anyio


async def connect(server: NatsServer, client: Client | None = None, **options: Any) -> Client:
    """Connect to *server* once, with no complaint in the log where it refuses."""

    async def ignore(_error: Exception) -> None: ...

    client = client or Client()
    try:
        await client.connect(server.url, connect_timeout=3, allow_reconnect=False, error_cb=ignore, **options)
    except BaseException:
        # It keeps the connection on which it was refused.
        await client.close()
        raise
    return client


async def refuses(server: NatsServer, **options: Any) -> bool:
    try:
        client = await connect(server, **options)
    except Error as error:
        return "Authorization Violation" in str(error)
    await client.close()
    return False


def key_options(key: SigningKey) -> Mapping[str, Any]:
    return {"signature_cb": lambda nonce: base64.b64encode(key.sign(nonce.encode()).signature)}


async def kept(server: NatsServer, subject: str) -> int:
    """Store a message of *subject* and return how many its stream holds."""
    client = await connect(server)
    try:
        return (await client.jetstream().publish(subject, b"kept", timeout=3)).seq
    finally:
        await client.close()


async def test_stream_survives_restart_kill_and_pause_at_the_same_port(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        places = server.url, server.monitoring_url
        client = await connect(server)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept.>"])
        await client.close()
        assert await kept(server, "kept.one") == 1
        await anyio.to_thread.run_sync(server.restart)
        assert await kept(server, "kept.two") == 2
        server.kill()
        await anyio.to_thread.run_sync(server.start)
        server.pause()
        with pytest.raises((TimeoutError, Error)):
            await connect(server)
        server.resume()
        assert await kept(server, "kept.three") == 3
        assert (server.url, server.monitoring_url) == places


async def test_monitoring_counts_what_waits(nats_server: NatsServer) -> None:
    """KEDA reads the same page."""
    name = new_name("COUNTED")
    client = await connect(nats_server)
    await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    await client.close()
    before = int(str(nats_server.monitored("/jsz")["messages"]))
    await kept(nats_server, f"{name}.one")
    assert int(str(nats_server.monitored("/jsz")["messages"])) == before + 1


async def test_password_can_be_changed_while_it_runs(tmp_path: Path) -> None:
    with NatsServer(tmp_path, users={"app": 'a "first" one'}) as server:
        assert await refuses(server)
        assert await refuses(server, user="app", password="another")
        cut_off = anyio.Event()

        async def tell() -> None:
            cut_off.set()

        await connect(server, user="app", password='a "first" one', closed_cb=tell)
        server.set_users({"app": "second"})
        with anyio.fail_after(5):
            await cut_off.wait()
        assert await refuses(server, user="app", password='a "first" one')
        assert not await refuses(server, user="app", password="second")


async def test_token_is_wanted_over_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    issued.cert_chain_pems[0].write_to_path(str(certificate))
    issued.private_key_pem.write_to_path(str(key))
    context = ssl.create_default_context()
    with NatsServer(tmp_path / "nats", token="a token", tls=(certificate, key)) as server:
        authority.configure_trust(context)
        assert await refuses(server, tls=context, token="another")
        assert not await refuses(server, tls=context, token="a token")


async def test_nkey_signs_in_and_no_other(tmp_path: Path) -> None:
    known, unknown = Nkey(), Nkey()
    with NatsServer(tmp_path, nkeys=[known.public]) as server:
        client = Client()
        client._public_nkey = known.public
        await (await connect(server, client, **key_options(known.key))).close()
        client = Client()
        client._public_nkey = unknown.public
        with pytest.raises(Error, match="Authorization Violation"):
            await connect(server, client, **key_options(unknown.key))


async def test_creds_of_the_servers_operator_sign_in_and_no_others(tmp_path: Path) -> None:
    ours, theirs = Operator(), Operator()
    with NatsServer(tmp_path, settings=ours.settings) as server:
        assert await refuses(server)
        assert await refuses(server, **creds_options(theirs.creds()))
        client = await connect(server, **creds_options(ours.creds()))
        stream = await client.jetstream().add_stream(name="OURS", subjects=["ours.>"])
        await client.close()
        assert stream.config.name == "OURS"


def creds_options(creds: str) -> Mapping[str, Any]:
    """Read a ``.creds`` file's text as NATS describes it: a token, and a seed with two bytes before and after it."""
    token, seed = (line for line in creds.splitlines() if line and not line.startswith("-"))
    key = SigningKey(base64.b32decode(seed + "=" * (-len(seed) % 8))[2:-2])
    return {"user_jwt_cb": lambda: token.encode(), **key_options(key)}
