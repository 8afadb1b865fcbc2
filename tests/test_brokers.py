"""The brokers that tests and ``make up BROKERS=1`` start: their life, their clients and those they refuse."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from deploy.brokers.kafka import KafkaServer
from deploy.brokers.nats import NatsServer
from deploy.brokers.processes import ServerError, reserve_port
from deploy.brokers.redis import RedisServer
from tests.servers_kafka import new_name

KCAT_SECONDS = 20.0
USERS = {"alice": "a pass,word=1]"}


def kcat(server: KafkaServer, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run kcat, which shares no code with us, against *server*."""
    command = ["kcat", "-q", "-b", server.bootstrap, *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=KCAT_SECONDS, check=False)


def produce(server: KafkaServer, topic: str, *values: str) -> None:
    done = kcat(server, "-P", "-t", topic, "-K", ":", given="".join(f"key:{value}\n" for value in values))
    assert done.returncode == 0, done.stderr


def consumed(server: KafkaServer, topic: str) -> list[str]:
    done = kcat(server, "-C", "-t", topic, "-o", "beginning", "-e", "-f", "%k:%s\n")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def signs_in(server: KafkaServer, mechanism: str, password: str, authority: Path) -> bool:
    """Tell whether ``alice`` gets in; the librdkafka of Debian's kcat cannot do SCRAM with Kafka 4 (its issue 4895)."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaConnectionError

    client = AIOKafkaAdminClient(
        bootstrap_servers=server.bootstrap,
        security_protocol=server.security_protocol,
        sasl_mechanism=mechanism,
        sasl_plain_username="alice",
        sasl_plain_password=password,
        ssl_context=ssl.create_default_context(cafile=str(authority)),
    )
    try:
        await client.start()
        await client.list_topics()
    except KafkaConnectionError:
        return False
    finally:
        await client.close()
    return True


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Give the paths of a certificate, its key and who vouches for it."""
    folder, made = tmp_path_factory.mktemp("certificates"), trustme.CA()
    issued = made.issue_cert("localhost")
    paths = (folder / "certificate.pem", folder / "key.pem", folder / "authority.pem")
    for path, content in zip(paths, (issued.cert_chain_pems[0], issued.private_key_pem, made.cert_pem), strict=True):
        content.write_to_path(str(path))
    return paths


@pytest.fixture(scope="module")
def guarded(
    authority: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[KafkaServer, Path]]:
    """Give a Kafka that wants TLS and a password, and who vouches for it."""
    with KafkaServer(tmp_path_factory.mktemp("guarded"), users=USERS, tls=authority[:2]) as server:
        yield server, authority[2]


def test_foreign_client_produces_and_consumes(kafka: KafkaServer) -> None:
    topic = new_name("kcat")
    asyncio.run(kafka.create_topic(topic))
    produce(kafka, topic, "one", "two")
    assert consumed(kafka, topic) == ["key:one", "key:two"]


def test_topic_has_the_partitions_and_settings_asked_for(kafka: KafkaServer) -> None:
    topic = new_name("settings")
    asyncio.run(kafka.create_topic(topic, 3, {"cleanup.policy": "compact"}))
    described = kafka.tool("org.apache.kafka.tools.TopicCommand", "--describe", "--topic", topic)
    assert "PartitionCount: 3" in described
    assert "cleanup.policy=compact" in described
    with pytest.raises(ServerError, match="already exists"):
        asyncio.run(kafka.create_topic(topic))


def test_topic_that_nobody_made_is_not_made_by_using_it(kafka: KafkaServer) -> None:
    """A typing error in a topic's name must show."""
    topic = new_name("absent")
    assert "Unknown topic" in kcat(kafka, "-L", "-t", topic).stdout
    assert topic not in kafka.tool("org.apache.kafka.tools.TopicCommand", "--list")


def test_tool_that_fails_says_why(kafka: KafkaServer) -> None:
    with pytest.raises(ServerError, match="does not exist as expected"):
        kafka.tool("org.apache.kafka.tools.TopicCommand", "--describe", "--topic", new_name("absent"))


def test_kafka_keeps_records_through_restart_kill_and_pause(tmp_path: Path) -> None:
    with KafkaServer(tmp_path) as server:
        place = server.bootstrap
        asyncio.run(server.create_topic("kept"))
        produce(server, "kept", "one")
        server.restart()
        produce(server, "kept", "two")
        server.kill()
        assert kcat(server, "-L", "-m", "1").returncode != 0
        server.start()
        server.pause()
        assert kcat(server, "-L", "-m", "1").returncode != 0
        server.resume()
        assert consumed(server, "kept") == ["key:one", "key:two"]
        assert server.bootstrap == place


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_kafka_takes_the_right_password_over_tls_and_no_other(
    mechanism: str, guarded: tuple[KafkaServer, Path]
) -> None:
    server, authority = guarded
    assert asyncio.run(signs_in(server, mechanism, USERS["alice"], authority))
    assert not asyncio.run(signs_in(server, mechanism, "another", authority))


def test_guarded_kafka_answers_nobody_without_tls(guarded: tuple[KafkaServer, Path]) -> None:
    assert kcat(guarded[0], "-L", "-m", "1").returncode != 0


def test_server_whose_port_is_taken_tells_its_last_words(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
        with pytest.raises(ServerError, match=r"(?s)^Redis does not answer:\n.*Address already in use"):
            server.start()
    assert not server.running
    with server:
        assert server.running


def test_kafka_with_wrong_settings_tells_its_last_words(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path, settings={"authorizer.class.name": "no.such.Thing"})
    with pytest.raises(ServerError, match=r"(?s)^Kafka does not answer:\n.*no\.such\.Thing"):
        server.start()
    assert not server.running


def test_nats_with_wrong_settings_tells_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"NATS does not answer:\n.*unknown field"):
        NatsServer(tmp_path, settings="no_such_thing: 1\n").start()


def test_reserved_port_is_given_to_nobody_else() -> None:
    ports = [reserve_port() for _ in range(300)]
    assert len(set(ports)) == 300
