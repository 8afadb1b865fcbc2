"""Dead letters from the command line: the same on Kafka and on NATS."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time

import pytest

from faasbase.deadletters.arguments import parse
from tests.letter_places import Done, KafkaPlace, NatsPlace, Place, a_letter, command, started

pytestmark = pytest.mark.anyio

# Has the process killed at one step of a redrive: before anything, between sending and removing, after both.
KILLED = """
import os, signal
from faasbase.deadletters import {system} as transport
letters = transport.{kind}Letters
real = letters.{step}
async def last(self, *given):
    {order}
letters.{step} = last
"""
PEAK = """
import atexit, re, sys
status = lambda: open("/proc/self/status").read()
atexit.register(lambda: sys.stderr.write(re.search(r"VmHWM:\\s+(\\d+)", status())[1]))
"""
BEFORE, AFTER = "os.kill(os.getpid(), signal.SIGKILL)", "await real(self, *given); os.kill(os.getpid(), signal.SIGKILL)"


@pytest.fixture(params=["kafka", "nats"])
async def place(request: pytest.FixtureRequest) -> Place:
    """Give a place of letters of the test's own."""
    if request.param == "kafka":
        topics = KafkaPlace(request.getfixturevalue("kafka"))
        await topics.make()
        return topics
    streams = NatsPlace(request.getfixturevalue("nats_server"))
    await streams.make()
    return streams


async def left(place: Place) -> set[str]:
    """Return the ids of the letters that are there."""
    done = await command(place, "list", "--json")
    assert done.status == 0, done.errors
    return done.ids


async def test_letters_are_listed_without_what_their_messages_hold(place: Place) -> None:
    await place.keep(a_letter(place, 1), a_letter(place, 2, attempts=7))
    plain, listed = await asyncio.gather(command(place, "list"), command(place, "list", "--json"))
    assert (plain.status, listed.status) == (0, 0)
    assert sorted(line[:32] for line in plain.lines) == sorted(listed.ids) == [f"{n:032x}" for n in (1, 2)]
    assert "2 dead letters" in plain.errors
    assert listed.errors == ""
    second = next(document for document in listed.documents if document["attempts"] == 7)
    assert second["destination"] == place.destination
    assert second["content_bytes"] == len(b"\x00\xffcontent-2")
    assert not any(word in line for line in plain.lines + listed.lines for word in ("content-", "key-", "traceparent"))


async def test_letter_without_its_content_stays(place: Place) -> None:
    """It could only go back as another message; where that was is told."""
    await place.keep(a_letter(place, 1).shortened(), a_letter(place, 2))
    done = await command(place, "redrive")
    assert (done.status, await left(place)) == (1, {f"{1:032x}"})
    assert f"11 bytes, was too large to be kept: the message was at {place.destination}/0/1" in done.errors
    [document] = (await command(place, "list", "--json")).documents
    assert (document["content_bytes"], document["truncated"]) == (11, True)


async def test_filters_select(place: Place) -> None:
    letters = [
        a_letter(place, 1, error="TimeoutError"),
        a_letter(place, 2, function="notifier"),
        a_letter(place, 3, died_at=time.time() - 7200),
        a_letter(place, 4, redrives=2),
        a_letter(place, 5, destination=place.elsewhere),
    ]
    selected = {
        ("--error", "Timeout*"): {1},
        ("--function", "notifier"): {2},
        ("--until", "1h"): {3},
        ("--since", "1h"): {1, 2, 4, 5},
        ("--redrives-below", "2"): {1, 2, 3, 5},
        ("--destination", place.elsewhere): {5},
        ("--id", f"{1:032x}", f"{4:032x}"): {1, 4},
        ("--since", "1970-01-01T00:00", "--error", "Shelf*", "--function", "order-*", "--until", "1h"): {3},
    }
    for arguments, numbers in selected.items():
        wanted = parse(["list", *arguments]).wanted
        assert {int(letter.id, 16) for letter in letters if wanted.takes(letter)} == numbers, arguments
    await place.keep(*letters)
    some, two = await asyncio.gather(
        command(place, "list", "--json", "--since", "1h", "--redrives-below", "2", "--error", "Shelf*"),
        command(place, "list", "--json", "--limit", "2"),
    )
    assert some.ids == {f"{number:032x}" for number in (2, 5)}
    assert len(two.lines) == 2


async def test_show_tells_everything(place: Place) -> None:
    await place.keep(a_letter(place, 1, content=b"{}" + b"x" * 5000), a_letter(place, 2))
    page, full, document, listed = await asyncio.gather(
        command(place, "show", f"{1:032x}"),
        command(place, "show", f"{1:032x}", "--full"),
        command(place, "show", "--json", f"{2:032x}"),
        command(place, "list", "--json", "--content", "--id", f"{2:032x}"),
    )
    assert document.lines == listed.lines
    assert "header traceparent: 00-abc" in page.lines
    assert "... 906 bytes more: --full" in page.lines
    assert "x" * 5000 in full.lines[-2]
    assert document.documents[0]["content_base64"] == "AP9jb250ZW50LTI="
    assert {"name": "ce_id", "value": "2"} in document.documents[0]["headers"]


async def test_letter_that_is_not_there_is_named(place: Place) -> None:
    await place.keep(a_letter(place, 1))
    for arguments in (("show", "no-such"), ("redrive", "--id", "no-such"), ("purge", "--id", "no-such")):
        done = await command(place, *arguments)
        assert (done.status, "no-such: there is no such letter" in done.errors) == (1, True)


async def test_id_may_be_cut_short_where_no_other_begins_so(place: Place) -> None:
    """An id in full is itself, though others go on from there; nothing is done where one of several is meant."""
    ids = [*(f"5f0c{number}".ljust(32, "0") for number in range(4)), "6a", "6a".ljust(32, "0"), "7b".ljust(32, "0")]
    await place.keep(*(a_letter(place, number, id=name) for number, name in enumerate(ids)))
    await place.add_foreign(1)
    for arguments in (("show", "5f0c"), ("redrive", "--id", "7", "5f0c"), ("purge", "--id", "5f0c", "7")):
        refused = await command(place, *arguments)
        assert (refused.status, refused.lines) == (2, [])
        told = f"5f0c: the ids of 4 letters begin so: {', '.join(ids[:3])} and 1 more\n"
        assert refused.errors == f"faasbase.deadletters: {told}"
    assert (await command(place, "show", "--json", "5f0c2")).ids == {ids[2]}
    assert (await command(place, "list", "--json", "--id", "5f0c2", ids[2])).ids == {ids[2]}
    empty = await command(place, "purge", "--id", "")
    assert (empty.status, "0 purged" in empty.errors) == (1, True)
    assert await left(place) == set(ids)
    assert "1 redriven, 0 failed, 1 foreign" in (await command(place, "redrive", "--id", "5f0c1")).errors
    assert "2 purged, 0 failed, 1 foreign" in (await command(place, "purge", "--id", "6a", "7")).errors
    assert await left(place) == {ids[0], *ids[2:4], ids[5]}


async def test_redrive_puts_the_message_back_as_it_was(place: Place) -> None:
    await place.keep(a_letter(place, 1, redrives=1), a_letter(place, 2, content=b""))
    done = await command(place, "redrive", "--json")
    assert (done.status, done.ids) == (0, {f"{n:032x}" for n in (1, 2)})
    assert "2 redriven, 0 failed" in done.errors
    assert await left(place) == set()
    first, second = sorted(await place.arrived(), key=lambda message: message.headers["ce_id"])
    assert (first.content, second.content) == (b"\x00\xffcontent-1", b"")
    assert first.key == (b"key-1" if place.keyed else None)
    assert first.headers["traceparent"] == b"00-abc"
    told = [first.headers[f"deadletter-{name}"] for name in ("id", "position", "redrives")]
    assert told == [b"%032x" % 1, f"{place.destination}/0/1".encode(), b"2"]
    assert "deadletter-reason" not in first.headers


async def test_redrive_goes_on_after_a_letter_that_nobody_takes(place: Place) -> None:
    other = "http" if place.keyed else "kafka"
    await place.keep(
        a_letter(place, 1, destination="no-such-place"),
        a_letter(place, 2),
        a_letter(place, 3, destination=""),
        a_letter(place, 4, system=other),
    )
    done = await command(place, "redrive")
    assert done.status == 1
    assert "1 redriven, 3 failed" in done.errors
    assert f"{1:032x}: " in done.errors
    assert f"{4:032x}: it came by {other}" in done.errors
    assert await left(place) == {f"{n:032x}" for n in (1, 3, 4)}
    assert (await command(place, "redrive", "--to", place.elsewhere, "--id", f"{1:032x}")).status == 0
    assert [message.content for message in await place.arrived(place.elsewhere)] == [b"\x00\xffcontent-1"]


async def test_purge_removes_what_is_selected_and_everything_only_if_told(place: Place) -> None:
    await place.keep(a_letter(place, 1), a_letter(place, 2), a_letter(place, 3, error="TimeoutError"))
    refused = await command(place, "purge")
    assert (refused.status, "--yes" in refused.errors) == (2, True)
    assert (await command(place, "purge", "--error", "TimeoutError")).status == 0
    assert await left(place) == {f"{n:032x}" for n in (1, 2)}
    assert "2 purged, 0 failed" in (await command(place, "purge", "--yes")).errors
    assert await left(place) == set()
    assert await place.arrived() == []


async def test_dry_run_changes_nothing(place: Place) -> None:
    await place.keep(a_letter(place, 1), a_letter(place, 2))
    for name in ("redrive", "purge"):
        done = await command(place, name, "--dry-run", "--json")
        assert (done.status, done.ids) == (0, {f"{n:032x}" for n in (1, 2)})
        assert "2 would be" in done.errors
    assert len(await left(place)) == 2
    assert await place.arrived() == []


async def test_rate_is_kept(place: Place) -> None:
    await place.keep(*(a_letter(place, number) for number in range(9)))
    assert "3 redriven" in (await command(place, "redrive", "--limit", "3")).errors
    slow = await command(place, "redrive", "--rate", "2/s")
    assert "6 redriven" in slow.errors
    assert slow.seconds > 2.5, "however soon it had begun"


async def test_foreign_messages_are_left_alone_and_counted(place: Place) -> None:
    await place.add_foreign(3)
    await place.keep(a_letter(place, 1), a_letter(place, 2, died_at=float("inf")))
    assert "1 dead letters, 4 foreign messages" in (await command(place, "list")).errors
    assert "1 purged, 0 failed, 4 foreign messages left alone" in (await command(place, "purge", "--yes")).errors
    assert "0 dead letters, 4 foreign messages" in (await command(place, "list")).errors


@pytest.mark.parametrize(("step", "order"), [("put_back", BEFORE), ("put_back", AFTER), ("remove", AFTER)])
async def test_nothing_is_lost_when_the_command_is_killed(place: Place, step: str, order: str) -> None:
    """A second run brings the rest; what is sent twice has the same id both times."""
    await place.keep(*(a_letter(place, number) for number in range(40)))
    names = ("kafka", "Kafka") if place.keyed else ("nats", "Nats")
    script = KILLED.format(system=names[0], kind=names[1], step=step, order=order)
    killed = await command(place, "redrive", script=script)
    assert killed.status == -signal.SIGKILL
    back = {message.headers["deadletter-id"].decode() for message in await place.arrived()}
    assert back | await left(place) == {f"{number:032x}" for number in range(40)}
    assert (await command(place, "redrive")).status == 0
    ids = [message.headers["deadletter-id"].decode() for message in await place.arrived()]
    assert set(ids) == {f"{number:032x}" for number in range(40)}
    assert len(ids) - 40 <= (16 if place.keyed else 0)
    assert await left(place) == set()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_command_tells_how_far_it_has_come(place: Place, number: signal.Signals) -> None:
    await place.keep(*(a_letter(place, number) for number in range(30)))
    async with started(place, "redrive", "--json", "--rate", "20/s") as process:
        assert process.stdout is not None
        first = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
        process.send_signal(number)
        output, errors = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 130
    done = {first["id"], *(json.loads(line)["id"] for line in output.decode().splitlines())}
    assert f"{len(done)} redriven, 0 failed" in errors.decode()
    assert await left(place) == {f"{number:032x}" for number in range(30)} - done
    assert {message.headers["deadletter-id"].decode() for message in await place.arrived()} == done


async def test_terminal_is_not_obedient_to_what_strangers_have_written(place: Place) -> None:
    await place.keep(a_letter(place, 1, reason="\x1b[2J\x07gone", content=b"a\x1b]0;owned\x07\nb"))
    listed, page = await asyncio.gather(command(place, "list"), command(place, "show", f"{1:032x}"))
    assert "\x1b" not in "".join(listed.lines + page.lines)
    assert "\\x1b[2J\\x07gone" in listed.lines[0]
    assert page.lines[-3:-1] == ["a\\x1b]0;owned\\x07", "b"]


async def test_letter_never_goes_to_where_it_lies(place: Place) -> None:
    own = place.url.rpartition("/")[2]
    await place.keep(a_letter(place, 1))
    to = own if place.keyed else f"dead-letters.{own}.again"
    done = await command(place, "redrive", "--to", to)
    assert (done.status, "where it lies" in done.errors) == (1, True)
    assert await left(place) == {f"{1:032x}"}


async def test_ten_thousand_letters_take_little_memory_and_time(place: Place) -> None:
    await place.keep(*(a_letter(place, number, content=b"x" * 2000) for number in range(100)))
    few = await command(place, "list", "--json", script=PEAK)
    await place.keep(*(a_letter(place, number, content=b"x" * 2000) for number in range(100, 10_000)))
    many = await command(place, "list", "--json", script=PEAK)
    assert (len(few.lines), len(many.lines)) == (100, 10_000)
    # Their contents alone are 20 MB.
    assert peak_kilobytes(many) - peak_kilobytes(few) < 16_000
    assert many.seconds < 20


async def test_progress_is_drawn_on_a_terminal_only(place: Place) -> None:
    await place.keep(*(a_letter(place, number) for number in range(8)))
    mine, theirs = os.openpty()
    try:
        async with started(place, "redrive", "--rate", "20/s", stderr=theirs) as process:
            assert await asyncio.wait_for(process.wait(), 20) == 0
        drawn = os.read(mine, 65_536).decode()
    finally:
        os.close(mine)
        os.close(theirs)
    assert re.search(r"\r\x1b\[K\[#+ +\] [1-8]/8 [0-8] redriven, 0 failed", drawn)
    assert drawn.endswith("8 redriven, 0 failed\r\n")


def peak_kilobytes(done: Done) -> int:
    return int(done.errors.split()[-1])


async def test_reader_who_has_had_enough_is_no_failure_to_tell(place: Place) -> None:
    await place.keep(*(a_letter(place, number, reason="r" * 1000) for number in range(400)))
    theirs, mine = os.pipe()
    async with started(place, "list", "--json", stdout=mine) as process:
        os.close(mine)
        assert process.stderr is not None
        assert await asyncio.to_thread(os.read, theirs, 100)
        os.close(theirs)
        assert await asyncio.wait_for(process.stderr.read(), 20) == b""
        assert await asyncio.wait_for(process.wait(), 20) == 1
