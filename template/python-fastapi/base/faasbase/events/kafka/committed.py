"""What a group has committed, its metadata too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from .access import until_answered


async def committed_offsets(
    client: AIOKafkaClient, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """
    Return what *group* has committed for those of *partitions* for which it has; asks until it is answered.

    Raises:
        KafkaError: Asking again would not help.
    """
    topics: defaultdict[str, list[int]] = defaultdict(list)
    for topic, partition in partitions:
        topics[topic].append(partition)
    request = OffsetFetchRequest(group, list(topics.items()))
    return await until_answered(lambda: _asked(client, group, request))


async def _asked(
    client: AIOKafkaClient, group: str, request: OffsetFetchRequest
) -> dict[TopicPartition, OffsetAndMetadata]:
    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
    answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    # The library's own look-up does not read this one, and takes "not now" for "nothing committed".
    _raise(getattr(answer, "error_code", 0))
    found: dict[TopicPartition, OffsetAndMetadata] = {}
    for topic, parts in answer.topics:
        for partition, offset, metadata, code in parts:
            _raise(code)
            if offset >= 0:
                found[TopicPartition(topic, partition)] = OffsetAndMetadata(offset, metadata or "")
    return found


def _raise(code: int) -> None:
    if code:
        raise errors.for_code(code)()
