"""One S3 client: opened when it is first needed, asked again where that helps, closed at the end."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from ..resilience import backoff
from .s3_credentials import Pair, S3Credentials, Signing
from .s3_failures import Failure, failure_of, storage_error
from .s3_library import library_errors, new_client, new_session
from .s3_location import S3Location
from .s3_records import Outage, recorded
from .threads import Threads

if TYPE_CHECKING:
    from pydantic import SecretStr

T = TypeVar("T")
Work = Callable[[Any], Awaitable[T]]

_BASE_SECONDS, _CAP_SECONDS = 0.05, 2.0
_BYTES_PER_SECOND = 1024 * 1024
"""The slowest connection that large bodies are given time for."""
_RENEWALS = 2


class S3Client:
    """
    Sends requests to the bucket of *location*, each with one deadline over all its repetitions.

    What fails is a `StorageError`.  The library is imported by the first request, in a thread.
    """

    def __init__(self, location: S3Location) -> None:
        self.location = location
        self._threads = Threads(1, "s3-import")
        self._opening = asyncio.Lock()
        self._session: Any = None
        self._clients: dict[str | None, Any] = {}
        self._stack = AsyncExitStack()
        self._ca_used: SecretStr | None = None
        self._warming: asyncio.Task[None] | None = None
        self._outage = Outage()
        self._credentials: S3Credentials | None = None
        self._signing: Signing | None = None
        if location.access_key and location.secret_key:
            self._credentials = S3Credentials(location.access_key, location.secret_key)
            self._signing = Signing(self._credentials)

    def warm_up(self) -> None:
        """Begin to open the client, where the location asks for it; nobody waits for it but the first request."""
        if self.location.warm and self._warming is None:
            self._warming = asyncio.create_task(self._warm(), name="s3 warm-up")

    async def call(self, method: str, operation: str, key: str, *, body: bytes | None = None, **arguments: Any) -> Any:
        """Send *method* (``PutObject``) about the object *key* for *operation*; *arguments* are S3's own."""

        async def send(client: Any) -> Any:
            sent = {} if body is None else {"Body": _Body(body)}
            return await getattr(client, _SNAKE[method])(Bucket=self.location.bucket, **arguments, **sent)

        seconds = self.location.timeout_seconds + len(body or b"") / _BYTES_PER_SECOND
        with recorded(self.location, method, key) as record:
            answer = await self._persist(send, operation, key, seconds, record.retried)
            record.answered(answer)
            return answer

    async def presigned(self, method: str, operation: str, key: str, expires_seconds: int, **arguments: Any) -> str:
        """Return the address by which anyone may do *method* for a time; nothing is sent for it."""
        endpoint = self.location.public_endpoint or self.location.endpoint
        parameters = {"Bucket": self.location.bucket, **arguments}

        async def sign(_: Any) -> str:
            client = await self._client(endpoint)
            return str(await client.generate_presigned_url(_SNAKE[method], parameters, expires_seconds))

        return await self._persist(sign, operation, key, self.location.timeout_seconds, lambda: None, sent=False)

    async def close(self) -> None:
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        await self._forget()
        self._threads.close()

    async def _persist(
        self, work: Work[T], operation: str, key: str, seconds: float, retried: Callable[[], None], sent: bool = True
    ) -> T:
        await self._library()
        end, attempt, renewals = time.monotonic() + seconds, 0, 0
        answered: tuple[Failure, Exception] | None = None
        while True:
            pair = self._signing.choose() if self._signing else None
            try:
                # Half of the time for each try: one that hangs leaves room for another.
                async with asyncio.timeout(min(seconds / 2, end - time.monotonic())):
                    answer = await work(await self._client(self.location.endpoint))
            except library_errors() as exc:
                failure, cause = failure_of(exc), exc
                answered = (failure, exc) if failure.answered and failure.temporary else answered
            else:
                if sent:
                    self._worked(pair)
                return answer
            if renewals < _RENEWALS and await self._renewed(failure, pair):
                renewals, wait = renewals + 1, 0.0
            else:
                wait = backoff(attempt, _BASE_SECONDS, _CAP_SECONDS)
                if not failure.temporary or time.monotonic() + wait >= end:
                    # What the server has said tells more than that the last try had no time left.
                    failure, cause = answered if failure.temporary and answered else (failure, cause)
                    raise self._failed(failure, operation, key) from cause
                attempt += 1
            retried()
            await asyncio.sleep(wait)

    async def _renewed(self, failure: Failure, pair: Pair | None) -> bool:
        """Tell whether other credentials or certificates than were used are there to be tried."""
        if failure.denied and self._credentials and pair:
            return self._credentials.refused(pair)
        if failure.untrusted and self.location.ca and self.location.ca.refresh(self._ca_used):
            await self._forget()
            return True
        return False

    def _worked(self, pair: Pair | None) -> None:
        self._outage.over()
        if self._credentials and pair:
            self._credentials.accepted(pair)

    def _failed(self, failure: Failure, operation: str, key: str) -> Exception:
        error = storage_error(failure, operation, key, self.location.bucket)
        self._outage.failed(error)
        return error

    async def _library(self) -> None:
        """Import the library, which nobody's deadline is about: on a slow machine it takes seconds."""
        if self._session is None:
            async with self._opening:
                if self._session is None:
                    self._session = await self._threads.run(lambda: new_session(self._signing))

    async def _client(self, endpoint: str | None) -> Any:
        if endpoint not in self._clients:
            async with self._opening:
                if endpoint not in self._clients:
                    self._ca_used = self.location.ca.reveal() if self.location.ca else None
                    opened = new_client(self._session, self.location, endpoint)
                    self._clients[endpoint] = await self._stack.enter_async_context(opened)
        return self._clients[endpoint]

    async def _forget(self) -> None:
        """Close what is open; the next request opens it again."""
        async with self._opening:
            self._clients.clear()
            stack, self._stack = self._stack, AsyncExitStack()
            await stack.aclose()

    async def _warm(self) -> None:
        await self._library()
        with suppress(*library_errors()):
            async with asyncio.timeout(self.location.timeout_seconds):
                await self._client(self.location.endpoint)


class _Body(BytesIO):
    """Bytes that go to the socket by and by: given as they are, all of them would be copied into its buffer."""

    def getbuffer(self) -> memoryview:
        # The client asks for their number in this way, and the original would copy them for it.
        return memoryview(self.getvalue())


_SNAKE = {
    "AbortMultipartUpload": "abort_multipart_upload",
    "CompleteMultipartUpload": "complete_multipart_upload",
    "CreateMultipartUpload": "create_multipart_upload",
    "DeleteObject": "delete_object",
    "GetObject": "get_object",
    "HeadObject": "head_object",
    "ListObjectsV2": "list_objects_v2",
    "PutObject": "put_object",
    "UploadPart": "upload_part",
}
"""The library's names for S3's operations."""
