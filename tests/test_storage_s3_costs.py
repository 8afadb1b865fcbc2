"""What the store in a bucket costs: nothing before it is used, and little memory however long the streams are."""

from __future__ import annotations

import os
import subprocess
import sys
from uuid import uuid4

import pytest

from tests.servers_s3 import S3Server
from tests.staging import BASE

STREAM_MIB = int(os.environ.get("STORAGE_STREAM_MIB", "128"))
"""How long the stream is whose memory is measured; 2048 takes minutes."""
MAX_GROWTH_MIB = 64


def run(script: str, *arguments: str) -> str:
    """Run *script* in a process of its own and return what it prints."""
    command = [sys.executable, "-c", script, *arguments]
    credentials = {"AWS_ACCESS_KEY_ID": "app-key", "AWS_SECRET_ACCESS_KEY": "app-secret"}
    environ = {**os.environ, **credentials, "PYTHONPATH": str(BASE)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_library_is_not_imported_before_the_first_operation(s3_server: S3Server) -> None:
    script = """
import sys
from faasbase.storage import open_store
store = open_store(sys.argv[1])
print([name for name in ("aioboto3", "aiobotocore", "botocore", "boto3", "aiohttp") if name in sys.modules])
"""
    assert run(script, s3_server.location()).strip() == "[]"


def test_library_that_is_not_installed_is_named_with_its_extra() -> None:
    script = """
import sys
sys.modules["aioboto3"] = None
from faasbase.errors import MissingExtraError
from faasbase.storage import open_store
try:
    open_store("s3://bucket")
except MissingExtraError as exc:
    print(exc)
"""
    assert "faasbase[s3]" in run(script)


MEASURE = """
import asyncio, os, sys
from faasbase.storage import open_store

def resident_mib():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

async def chunks(mib):
    block = os.urandom(2**20)
    for number in range(mib):
        yield number.to_bytes(8, "big") + block[8:]

async def watch(peak):
    while True:
        peak.append(max(peak.pop(), resident_mib()))
        await asyncio.sleep(0.005)

async def main(url, mib):
    store = open_store(url)
    await store.put(b"the library is in memory now", key="a")
    await store.get("a")
    before = resident_mib()
    peak = [before]
    watching = asyncio.create_task(watch(peak))
    stored = await store.put_stream("stream", chunks(mib))
    size = sum([len(piece) async for piece in store.open("stream")])
    watching.cancel()
    assert size == stored.size_bytes == mib * 2**20
    await store.delete("stream")
    await store.close()
    print(peak[0] - before)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


@pytest.mark.timeout(900)
def test_stream_of_any_length_takes_little_memory(s3_server: S3Server) -> None:
    """Both ways; `STORAGE_STREAM_MIB` says how long it is."""
    assert float(run(MEASURE, s3_server.location(uuid4().hex, timeout="60s"), str(STREAM_MIB))) < MAX_GROWTH_MIB
