"""The Kafka of all tests that do not stop it or change its settings: each test has topics and groups of its own."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping

import pytest

from deploy.brokers.kafka import KafkaServer

MakeTopic = Callable[..., Awaitable[str]]


def new_name(prefix: str) -> str:
    """Return a name for a topic, a group or a stream that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:10]}"


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaServer]:
    """Give the Kafka of this test process, without passwords."""
    with KafkaServer(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def make_topic(kafka: KafkaServer) -> MakeTopic:
    """Give ``await make_topic(partitions, config)``, which returns the new topic's name."""

    async def make(partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        name = new_name("orders")
        await kafka.create_topic(name, partitions, config)
        return name

    return make
