"""Records that the library cannot read, since a name of their headers is no UTF-8: anybody can write them."""

from __future__ import annotations

import struct
from itertools import islice
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.structs import TopicPartition

from .records import Message

_MOST_BYTES = 1024 * 1024
_MOST_RECORDS = 100
_WAIT_MILLISECONDS = 500
_READ_COMMITTED = 1
_VERSION_WITH_REPLICA = 11
_BATCH_HEAD = struct.Struct(">qi")
"""The first offset of a batch, and how many bytes follow."""


async def reread(client: AIOKafkaClient, place: TopicPartition, position: int, most: int) -> tuple[list[Message], int]:
    """
    Return the next records of *place* from *position* on, *most* of them at most, and the position behind them.

    There may be none before the next position: of transactions that were aborted nothing is returned.

    Raises:
        KafkaError: Nobody answers, or what is there is damaged.
    """
    node = client.cluster.leader_for_partition(place)
    wanted = [(place.topic, [(place.partition, position, _MOST_BYTES)])]
    request = FetchRequest(_WAIT_MILLISECONDS, 1, _MOST_BYTES, _READ_COMMITTED, wanted)
    answer = await client.send(node, request)
    for _, ((_, code, *parts),) in answer.topics:
        if code:
            raise errors.for_code(code)()
        # The records come last; newer answers have the replica to ask before them.
        aborted = parts[-3 if answer.API_VERSION >= _VERSION_WITH_REPLICA else -2]
        batches = _Batches(parts[-1])
        records = PartitionRecords(place, batches, aborted, position, None, None, False, _READ_COMMITTED)
        messages = list(islice(records, min(most, _MOST_RECORDS)))
        return messages, records.next_fetch_offset
    return [], position


class _Batches:
    """The batches in *data*, one that is cut off at its end apart, as the library's own reader gives them."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def has_next(self) -> bool:
        return self._end <= len(self._data)

    def next_batch(self) -> Any:
        raw, self._at = self._data[self._at : self._end], self._end
        batch = _DefaultRecordBatchPy(raw)
        if not batch.validate_crc():
            raise errors.CorruptRecordException
        batch._maybe_uncompress()
        batch._buffer = _Lenient(batch._buffer)
        return batch

    @property
    def _end(self) -> int:
        if self._at + _BATCH_HEAD.size > len(self._data):
            return self._at + _BATCH_HEAD.size
        _, size = _BATCH_HEAD.unpack_from(self._data, self._at)
        return self._at + _BATCH_HEAD.size + int(size)


class _Lenient(bytearray):
    """Bytes whose parts are decoded whatever they are."""

    def __getitem__(self, at: slice | int) -> _Lenient | int:  # type: ignore[override]
        found = super().__getitem__(at)
        return _Lenient(found) if isinstance(found, bytearray) else found

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return super().decode(encoding, "backslashreplace")
