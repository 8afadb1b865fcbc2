"""Dead letters from the command line, where they are a compacted topic of Kafka."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer

from deploy.brokers.kafka import KafkaServer
from tests.letter_places import KafkaPlace, a_letter, command

pytestmark = pytest.mark.anyio


@pytest.fixture
async def place(kafka: KafkaServer) -> KafkaPlace:
    """Give a place of letters of the test's own."""
    topics = KafkaPlace(kafka)
    await topics.make()
    return topics


async def test_newest_record_of_a_letter_counts(place: KafkaPlace) -> None:
    await place.keep(a_letter(place, 1, attempts=1), a_letter(place, 2), a_letter(place, 3))
    await place.keep(a_letter(place, 1, attempts=9))
    await place.write((b"%032x" % 2, None, []))
    listed = await command(place, "list", "--json")
    assert {document["id"]: document["attempts"] for document in listed.documents} == {f"{1:032x}": 9, f"{3:032x}": 3}


async def test_tombstones_are_where_compaction_finds_them(place: KafkaPlace) -> None:
    """Compaction looks at one partition at a time."""
    await place.keep(*(a_letter(place, number) for number in range(6)))
    assert (await command(place, "purge", "--yes")).status == 0
    records = await place.records(place.topic)
    where: dict[bytes, set[int]] = {}
    for record in records:
        where.setdefault(record.key, set()).add(record.partition)
    assert len(records) == 12
    assert len({record.partition for record in records}) == 2
    assert all(len(partitions) == 1 for partitions in where.values())


async def test_message_goes_back_to_the_partition_that_it_came_from(place: KafkaPlace) -> None:
    """Its producer may choose partitions in another way than we do."""
    await place.keep(
        *(a_letter(place, number, key=b"one", position=f"{place.destination}/{number}/7") for number in range(3)),
        a_letter(place, 3, key=b"one", position=f"{place.destination}/99/7"),
    )
    assert (await command(place, "redrive")).status == 0
    records = await place.records(place.destination)
    where = {dict(record.headers)["deadletter-id"]: record.partition for record in records}
    assert len(where) == 4
    assert [where[b"%032x" % number] for number in range(3)] == [0, 1, 2]


async def test_end_of_a_transaction_is_no_letter(place: KafkaPlace, kafka: KafkaServer) -> None:
    """Markers take offsets and are never seen: reading must come to its end all the same."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=place.topic)
    await producer.start()
    letter = a_letter(place, 1)
    async with producer.transaction():
        await producer.send(place.topic, letter.content, key=letter.id.encode(), headers=letter.all_headers())
    await producer.stop()
    listed = await command(place, "list", "--json", "--timeout", "10s")
    assert (listed.status, listed.ids) == (0, {letter.id})


async def test_letters_are_found_beside_the_source(place: KafkaPlace, kafka: KafkaServer) -> None:
    await place.keep(a_letter(place, 1))
    group = place.topic.removesuffix(".dead-letters")
    listed = await command(None, "list", "--json", EVENTS_URL=f"{kafka.url}/{place.destination}?group={group}")
    assert (listed.status, listed.ids) == (0, {f"{1:032x}"})


async def test_topic_that_is_not_there_is_named(kafka: KafkaServer) -> None:
    for arguments, settings in (
        ((), {"EVENTS_URL": f"{kafka.url}/orders?group=nobody"}),
        (("--url", f"{kafka.url}/nobody.dead-letters"), {}),
    ):
        done = await command(None, "list", *arguments, **settings)
        assert (done.status, "there is no topic nobody.dead-letters" in done.errors) == (2, True)
        assert len(done.errors.splitlines()) == 1


async def test_tombstone_and_header_without_a_value_go_back_as_they_were(place: KafkaPlace) -> None:
    """An empty content would bring a key back to life where a tombstone had ended it."""
    await place.keep(a_letter(place, 1, content=b"", headers=(("none", None), ("empty", b"")), tombstone=True))
    await place.keep(a_letter(place, 2, content=b""))
    assert (await command(place, "redrive")).status == 0
    ended, empty = sorted(await place.records(place.destination), key=lambda record: record.key)
    assert (ended.value, ended.headers[:2]) == (None, (("none", None), ("empty", b"")))
    assert empty.value == b""


async def test_messages_of_one_key_go_back_in_their_order(place: KafkaPlace) -> None:
    """That of their letters, however many others are on their way."""
    await place.keep(*(a_letter(place, n, key=b"one" if n % 2 else b"k%d" % n, position="p") for n in range(80)))
    kept = {record.key.decode(): record.partition for record in await place.records(place.topic)}
    assert (await command(place, "redrive")).status == 0
    back = [dict(record.headers) for record in await place.records(place.destination) if record.key == b"one"]
    assert len(back) == 40
    for partition in (0, 1):
        numbers = [int(told["ce_id"]) for told in back if kept[told["deadletter-id"].decode()] == partition]
        assert numbers == sorted(numbers)
