"""Settings of Kafka that cannot be used stop the start, by name and in one line, without a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from deploy.brokers.kafka import KafkaServer
from tests.kafka_orders import HANDLER
from tests.processes import free_port, run_function
from tests.servers_kafka import MakeTopic, new_name

pytestmark = pytest.mark.anyio


async def refused(env: Mapping[str, str | None], tmp_path: Path) -> str:
    """Run a function that must not start, and return the one line that says why."""
    given = {"JOURNAL": str(tmp_path / "journal"), "EVENTS_START_TIMEOUT": "3s", **env}
    async with run_function(HANDLER, **given).unwaited() as function:
        assert await function.exited() == 1
        lines = [line for line in function.logs() if line["level"] == "critical"]
        assert "canary" not in function.output()
    assert len(lines) == 1
    message = str(lines[0]["message"])
    assert message.startswith("start failed: ")
    return message


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kafka://{server}/{missing}", r"EVENTS_URL .* there is no topic no-such-topic at 127"),
        ("kafka://{server}/{topic},{missing}", r"EVENTS_URL .* there is no topic no-such-topic at 127"),
        ("kafka://{server}/{topic}?group=", r"EVENTS_URL .* has an option that is empty"),
        ("kafka://{server}/{topic}?groop=a", r"EVENTS_URL .* takes only the options .*group.*sasl"),
        ("kafka://{server}/{topic}?group=a&group=b", r"EVENTS_URL .* given more than once"),
        ("kafka://{server}/", r"EVENTS_URL .* whose path is a topic"),
        ("kafka://{server}/a/b", r"EVENTS_URL .* whose path is a topic"),
        ("kafka:///{topic}", r"EVENTS_URL .* host:port"),
        ("kafka://{server}:x/{topic}", r"EVENTS_URL .* host:port"),
        ("kafka://u:canary@{server}/{topic}", r"EVENTS_URL .* must not hold a password; the option password_secret"),
        ("kafka://user@{server}/{topic}", r"EVENTS_URL .* signs in with all of a user and the options"),
        ("kafka://{server}/{topic}?sasl=md5", r"EVENTS_URL .* option sasl must be one of plain"),
        ("kafka://{server}/{topic}?tls=maybe", r"EVENTS_URL .* option tls must be true or false"),
        ("kafka://{server}/{topic}?ca_secret=gone&tls=true", r"secret gone, which setting EVENTS_URL names"),
        ("kafka://{server}/{topic}?group=" + "g" * 240, r"EVENTS_URL .* set DEADLETTER_URL"),
        ("kafka://127.0.0.1:{closed}/{topic}", r"EVENTS_URL .* answered within 3 s \(EVENTS_START_TIMEOUT\)"),
    ],
)
async def test_source_that_cannot_be_is_named(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path, url: str, why: str
) -> None:
    """Before anything is fetched."""
    names = {"server": kafka.bootstrap, "missing": "no-such-topic", "closed": free_port(), "topic": "orders"}
    if "{topic}" in url:
        names["topic"] = await make_topic(1)
    assert re.search(why, await refused({"EVENTS_URL": url.format(**names)}, tmp_path))


@pytest.mark.parametrize(
    ("setting", "url", "why"),
    [
        ("PUBLISH_URL", "kafka://{server}/no-such-topic", r"PUBLISH_URL .* there is no topic no-such-topic"),
        ("PUBLISH_URL", "kafka://{server}/a,b", r"PUBLISH_URL .* one topic"),
        ("PUBLISH_URL", "kafka://{server}/a?group=g", r"PUBLISH_URL .* takes only the options"),
        ("DEADLETTER_URL", "kafka://{server}/a,b", r"DEADLETTER_URL .* one topic"),
        ("DEADLETTER_URL", "ftp://{server}/a", r"DEADLETTER_URL .* starts with"),
        ("EVENTS_SESSION_TIMEOUT", "2h", r"EVENTS_SESSION_TIMEOUT .* group.max.session.timeout.ms"),
    ],
)
async def test_setting_that_cannot_be_is_named(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path, setting: str, url: str, why: str
) -> None:
    """The topic of dead letters is made, that of other events never."""
    env = {"EVENTS_URL": f"{kafka.url}/{await make_topic(1)}", setting: url.format(server=kafka.bootstrap)}
    assert re.search(why, await refused(env, tmp_path))


async def test_group_of_another_kind_is_named(kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path) -> None:
    """Kafka's own consumers of the newer protocol make a group that this one cannot join."""
    from aiokafka import AIOKafkaConsumer
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor

    topic, group = await make_topic(1), new_name("group")
    other = AIOKafkaConsumer(
        topic,
        bootstrap_servers=kafka.bootstrap,
        group_id=group,
        partition_assignment_strategy=[RangePartitionAssignor],
    )
    await other.start()
    try:
        why = await refused({"EVENTS_URL": f"{kafka.url}/{topic}?group={group}"}, tmp_path)
    finally:
        await other.stop()
    assert f"setting EVENTS_URL cannot be used: the group {group} cannot be joined" in why
