"""What is needed of aioboto3, which is imported by the functions here, and only when a client is opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.util import find_spec
from typing import Any

from ..errors import MissingExtraError
from .s3_credentials import Signing
from .s3_location import S3Location

_CONNECTIONS = 64
_CONNECT_SECONDS = 3.0
_ANY_REGION = "us-east-1"
"""What servers that are not Amazon's take for theirs unless told otherwise."""


def check_library() -> None:
    """
    Make sure that the library can be found, without importing it.

    Raises:
        MissingExtraError: It is not installed.
    """
    if find_spec("aioboto3") is None:
        raise MissingExtraError("aioboto3", "s3")


def new_session(signing: Signing | None) -> Any:
    """Import the library and read S3's model, which takes a third of a second: blocks."""
    from .s3_session import session_of

    return session_of(signing)


@cache
def library_errors() -> tuple[type[Exception], ...]:
    """Return what requests raise for outside failures; a wrong argument is not among them."""
    from aiohttp import ClientError as ConnectionFailure
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError, ConnectionFailure, OSError)


@asynccontextmanager
async def new_client(session: Any, location: S3Location, endpoint: str | None) -> AsyncIterator[Any]:
    """Give a client of *endpoint*; nothing is sent yet, but for credentials that a server has."""
    from botocore.handlers import add_expect_header

    async with session.client(
        "s3",
        region_name=_region(session, location),
        endpoint_url=endpoint,
        verify=_certificates(location),
        config=_config(location),
    ) as client:
        # Some servers do not answer `Expect: 100-continue`, and for those that do it is one more round trip a part.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        yield client


def _region(session: Any, location: S3Location) -> str | None:
    return location.region or session.region_name or _ANY_REGION


def _certificates(location: S3Location) -> str | bool:
    return True if location.ca is None else str(location.ca.directory / location.ca.name)


def _config(location: S3Location) -> Any:
    from aiobotocore.config import AioConfig

    s3: dict[str, Any] = {"addressing_style": "path" if location.path_style else "virtual"}
    if location.checksums:
        # Signing a body hashes it on the event loop; the checksums that go along are made in a thread.
        s3["payload_signing_enabled"] = False
    return AioConfig(
        signature_version="s3v4",
        s3=s3,
        # We have one deadline for all tries, and know which are worth it.
        retries={"mode": "standard", "total_max_attempts": 1},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=min(_CONNECT_SECONDS, location.timeout_seconds),
        read_timeout=location.timeout_seconds,
        max_pool_connections=_CONNECTIONS,
    )
