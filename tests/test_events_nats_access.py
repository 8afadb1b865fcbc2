"""Who may fetch from NATS and publish to it: URLs, passwords, tokens, keys, certificates, and new ones of them."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import trustme
from nats.errors import ConnectionClosedError
from nats.js.client import JetStreamContext

from deploy.brokers.nats import NatsServer
from faasbase.errors import SettingError
from faasbase.event_policy import EventsPolicy
from faasbase.events import PublishError, publish
from faasbase.events.nats.client import NatsClient
from faasbase.events.nats.connection import NatsConnection
from faasbase.events.nats.login import login
from faasbase.events.nats.place import letters_place, source_place, subject_place
from faasbase.events.publishing import opened_publisher
from faasbase.settings import Settings
from tests.processes import run_function
from tests.servers_nats import Operator
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
from faasbase import Event, on_event, publish


@on_event("work")
async def work(event: Event[int]) -> None:
    print("ended", event.data, flush=True)


async def handle() -> str:
    return await publish("work", 7)
"""
CANARY = "canary-word"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[trustme.CA, tuple[Path, Path]]:
    """Give an authority, and the paths of a certificate for localhost and its key."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    issued = authority.issue_cert("localhost")
    paths = folder / "cert.pem", folder / "key.pem"
    issued.cert_chain_pems[0].write_to_path(paths[0])
    issued.private_key_pem.write_to_path(paths[1])
    return authority, paths


@asynccontextmanager
async def stream_on(server: NatsServer, **login: Any) -> AsyncIterator[JetStreamContext]:
    """Make the stream S on *server*."""
    async with await nats.connect(server.url, **login) as client:
        await client.jetstream().add_stream(name="S", subjects=["work"])
        yield client.jetstream()


def environment(server: NatsServer, secrets: Path, options: str, user: str = "") -> dict[str, str]:
    """Return the environment of a function that fetches and publishes with *options* of the URLs."""
    host = f"nats://{user}{server.url.partition('//')[2]}"
    return {
        "EVENTS_URL": f"{host}/S?{options}",
        "PUBLISH_URL": f"{host}/work?{options}",
        "FAAS_SECRETS_DIR": str(secrets),
        "EVENTS_START_TIMEOUT": "5s",
    }


async def works(env: dict[str, str]) -> str:
    """Make sure that a function gets what it publishes, and return its output."""
    async with run_function(HANDLER, **env) as function:
        await function.ready()
        assert (await call(function.port, "/", method="POST")).status == 200
        await function.log_line("ended 7")
        return function.output()


async def start_error(env: dict[str, str]) -> str:
    """Return the line that the start of a function ends with, which must fail."""
    async with run_function(HANDLER, **env).unwaited() as function:
        assert await function.exited() == 1
        assert CANARY not in function.output()
        return next(str(line["message"]) for line in function.logs() if "start failed" in line["message"])


async def test_password_is_a_secret_that_may_change(tmp_path: Path) -> None:
    """A wrong one stops the start; a new one is read when the server cuts the connection off."""
    secret = tmp_path / "broker"
    secret.write_text(f"wrong-{CANARY}")
    with NatsServer(tmp_path / "nats", users={"fn": f"first-{CANARY}"}) as server:
        async with stream_on(server, user="fn", password=f"first-{CANARY}"):
            env = environment(server, tmp_path, "password_secret=broker", "fn@")
            line = await start_error(env)
            assert re.search(r"setting (EVENTS|PUBLISH)_URL cannot be used: NATS at .* refuses the credentials", line)
            secret.write_text(f"first-{CANARY}\n")
            async with run_function(HANDLER, **env) as function:
                await function.ready()
                secret.write_text(f"second-{CANARY}")
                server.set_users({"fn": f"second-{CANARY}"})
                await function.log_line("connected to NATS again")
                assert (await call(function.port, "/", method="POST")).status == 200
                await function.log_line("ended 7")
                assert CANARY not in function.output()


async def test_credentials_that_stay_refused_end_the_process(tmp_path: Path) -> None:
    """It cannot go on without new ones, and whoever runs it should see that."""
    (tmp_path / "broker").write_text(CANARY)
    with NatsServer(tmp_path / "nats", users={"fn": CANARY}) as server:
        async with stream_on(server, user="fn", password=CANARY):
            env = environment(server, tmp_path, "password_secret=broker", "fn@")
            async with run_function(HANDLER, **{**env, "EVENTS_START_TIMEOUT": "1s"}) as function:
                await function.ready()
                server.set_users({"fn": "another"})
                assert await function.exited() == 1
                assert "refuses the credentials" in function.output()


async def test_token_signs_in(tmp_path: Path) -> None:
    """Where the server knows no users."""
    (tmp_path / "token").write_text(CANARY)
    with NatsServer(tmp_path / "nats", token=CANARY) as server:
        async with stream_on(server, token=CANARY):
            assert CANARY not in await works(environment(server, tmp_path, "token_secret=token"))


async def test_creds_file_signs_in_over_tls(tmp_path: Path, certificates: tuple[trustme.CA, tuple[Path, Path]]) -> None:
    """The key of the file signs what the server asks, and the server's own certificate is checked."""
    authority, paths = certificates
    operator = Operator()
    creds = operator.creds()
    (tmp_path / "creds").write_text(creds)
    authority.cert_pem.write_to_path(tmp_path / "ca")
    with NatsServer(tmp_path / "nats", tls=paths, settings=operator.settings) as server:
        context = ssl.create_default_context(cadata=authority.cert_pem.bytes().decode())
        signing = login(source_place("nats://localhost/S?credentials_secret=creds", _settings(tmp_path)))
        async with stream_on(server, tls=context, **signing):
            options = "tls=true&credentials_secret=creds"
            assert "certificate" in await start_error(environment(server, tmp_path, options))
            output = await works(environment(server, tmp_path, f"{options}&ca_secret=ca"))
    assert creds.splitlines()[1] not in output


def _settings(secrets: Path, **policy: Any) -> Settings:
    from faasbase.secrets import use_directory

    use_directory(secrets)
    return Settings(function_name="fn", secrets_dir=secrets, root_path="/fn", events=EventsPolicy(**policy))


@pytest.fixture(autouse=True)
def secrets_of_the_process() -> Any:
    """Put the folder of secrets back after a test."""
    from faasbase.secrets import use_directory

    before = use_directory(None)
    yield
    use_directory(before)


async def test_tls_is_never_given_up(tmp_path: Path) -> None:
    """A server without it gets no password."""
    (tmp_path / "broker").write_text(CANARY)
    with NatsServer(tmp_path / "nats") as server:
        line = await start_error(environment(server, tmp_path, "tls=true&password_secret=broker", "fn@"))
    assert "does not offer TLS" in line


@pytest.mark.parametrize(
    "url",
    [
        f"nats://fn:{CANARY}@host/S",
        "nats://host",
        "nats://host/a.b",
        "nats://host/S?durable=a.b",
        "nats://host/S?durable=",
        "nats://host/S?subject=a..b",
        "nats://host/S?subject=a.>.b",
        "nats://host/S?unknown=1",
        "nats://host/S?tls=true&tls=true",
        "nats://host/S?tls=perhaps",
        "nats://host:70000/S",
        f"nats://host:{CANARY}/S",
        "nats://fn@host/S",
        "nats://host/S?password_secret=a",
        "nats://fn@host/S?password_secret=a&token_secret=b",
        "nats://host/S?ca_secret=a",
        "nats://host/S?token_secret=../a",
        "nats://host,/S",
    ],
)
def test_url_that_cannot_be_used_is_refused(url: str) -> None:
    """By the setting's name, nothing of it being shown."""
    with pytest.raises(SettingError, match="EVENTS_URL") as refused:
        source_place(url, Settings(function_name="fn"))
    assert CANARY not in str(refused.value)


def test_url_says_where_and_what() -> None:
    """Several servers, ports by default, and names of the function's own."""
    settings = Settings(function_name="notifier")
    place = source_place("nats://a,b:4333,[::1]/ORDERS?subject=orders.*.created", settings)
    assert place.servers == ("a:4222", "b:4333", "[::1]:4222")
    assert (place.name, place.durable, place.subject) == ("ORDERS", "notifier", "orders.*.created")
    beside = letters_place("EVENTS_URL", "nats://a/ORDERS", settings)
    assert (beside.stream, beside.subject) == ("notifier-dead-letters", "dead-letters.notifier")
    elsewhere = letters_place("DEADLETTER_URL", "nats://b/LETTERS", settings)
    assert (elsewhere.place.servers, elsewhere.stream) == (("b:4222",), "LETTERS")
    assert subject_place("nats://a/orders.created").name == "orders.created"


@pytest.mark.parametrize(
    ("place", "secret"), [("token_secret=a&tls=true&ca_secret=b", "b"), ("credentials_secret=a", "a")]
)
def test_secret_of_no_use_is_named_and_not_shown(tmp_path: Path, place: str, secret: str) -> None:
    """What should be a certificate, or a creds file, may be another secret by mistake."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(CANARY)
    settings = _settings(tmp_path)
    with pytest.raises(SettingError) as refused:
        login(source_place(f"nats://host/S?{place}", settings))
    assert CANARY not in str(refused.value)


async def test_publishing_waits_for_a_server_that_restarts(tmp_path: Path) -> None:
    """It returns when the stream has the event, once however often it was sent."""
    with NatsServer(tmp_path / "nats") as server:
        async with stream_on(server):
            pass
        async with opened_publisher(_settings(tmp_path, publish_url=f"{server.url}/work")):
            await publish("work", 1)
            await asyncio.to_thread(server.stop)
            later = [asyncio.create_task(publish("work", number)) for number in range(5)]
            await asyncio.sleep(0.2)
            assert not any(task.done() for task in later)
            await asyncio.to_thread(server.start)
            await asyncio.gather(*later)
            await publish("work", 1, id="same")
            await publish("work", 1, id="same")
        async with await nats.connect(server.url) as client:
            assert (await client.jetstream().stream_info("S")).state.messages == 7


async def test_what_no_stream_takes_is_an_error(nats_server: NatsServer, tmp_path: Path) -> None:
    """Soon, and by name; what is too large is never sent."""
    async with await nats.connect(nats_server.url) as client:
        await client.jetstream().add_stream(name="TAKEN", subjects=["taken"], max_msg_size=1000)
    async with opened_publisher(_settings(tmp_path, publish_url=f"{nats_server.url}/taken")):
        for wrong, reason in (("nowhere", "no stream takes"), ("a b", "no subject"), ("taken.*", "no subject")):
            with pytest.raises(PublishError, match=reason):
                await publish("work", 1, to=wrong)
        with pytest.raises(PublishError, match="refuses the message"):
            await publish("work", "x" * 2000)
        with pytest.raises(PublishError, match="1048576 bytes"):
            await publish("work", "x" * 1_048_576)
        await publish("work", 1)


async def test_connection_that_takes_no_repeats_is_given_up(nats_server: NatsServer) -> None:
    """Another one is made, and none is left behind that nobody uses."""
    clients: list[NatsClient] = []

    async def repeat(client: NatsClient) -> None:
        clients.append(client)
        if len(clients) < 3:
            raise ConnectionClosedError

    connection = NatsConnection(subject_place(f"{nats_server.url}/work"), "repeating", repeat=repeat)
    async with asyncio.timeout(10):
        await connection.open()
    assert [client.is_closed for client in clients] == [True, True, False]
    assert connection.current is clients[-1]
    await connection.close()
