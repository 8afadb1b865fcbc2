"""What went wrong between this process and an S3 server, and which error of ours that is."""

import re
from dataclasses import dataclass

from .errors import (
    ChecksumError,
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    StoreDeniedError,
    StoreUnavailableError,
)

_CODE = re.compile(r"[A-Za-z0-9._-]{1,64}")

_LATER = frozenset(
    (
        *("InternalError", "OperationAborted", "RequestTimeout", "ServiceUnavailable", "SlowDown"),
        *("RequestThrottled", "Throttling", "ThrottlingException", "TooManyRequests"),
    )
)
_BAD_CREDENTIALS = frozenset(
    # A HEAD has no body to name the code in, and is answered by the bare status.
    (
        *("403", "AccessDenied", "AuthFailure", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken"),
        *("SignatureDoesNotMatch", "TokenRefreshRequired"),
    )
)
_NO_CREDENTIALS = frozenset(
    (
        *("CredentialRetrievalError", "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"),
        *("MetadataRetrievalError", "NoAuthTokenError", "UnauthorizedSSOTokenError"),
    )
)
_DAMAGED = frozenset(("BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"))


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed request."""

    code: str
    """As S3 names it; where there was no answer, what kind of error there was instead."""
    status: int = 0
    """Of the answer; 0 where there was none."""
    answered: bool = True

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed a moment later."""
        if not self.answered:
            return self.code not in _NO_CREDENTIALS and not self.untrusted
        return self.status in (429, 500, 502, 503, 504) or self.code in _LATER or self.damaged

    @property
    def denied(self) -> bool:
        """Whether it may be for the credentials."""
        return self.status in (401, 403) or self.code in _BAD_CREDENTIALS or self.code in _NO_CREDENTIALS

    @property
    def untrusted(self) -> bool:
        """Whether the server could not show a certificate that is good for it."""
        return self.code == "SSLError"

    @property
    def damaged(self) -> bool:
        """Whether the server received other bytes than were sent."""
        return self.code in _DAMAGED


def failure_of(error: Exception) -> Failure:
    """Describe what aiobotocore, or the connection below it, has raised; nothing of its text is kept."""
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict):
        return Failure("timeout" if isinstance(error, TimeoutError) else type(error).__name__, answered=False)
    code = str(answer.get("Error", {}).get("Code", ""))
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return Failure(code if _CODE.fullmatch(code) else str(status), status)


def storage_error(failure: Failure, operation: str, key: str, bucket: str) -> StorageError:
    """Return what callers get for *failure*."""
    if failure.code == "NoSuchBucket":
        return StorageError(operation, key, f"the bucket {bucket!r} does not exist")
    if failure.damaged:
        return ChecksumError(operation, key)
    if failure.denied:
        return StoreDeniedError(operation, key, _denial(failure, bucket))
    if failure.temporary:
        return StoreUnavailableError(operation, key, f"the store is not available ({failure.code})")
    if failure.untrusted:
        return StoreUnavailableError(
            operation, key, "the store's certificate is not for its name, or not signed by a known authority"
        )
    if failure.status == 404:
        return ObjectNotFoundError(operation, key)
    if failure.status == 412:
        return ObjectChangedError(operation, key)
    return StorageError(operation, key, f"the store refuses it ({failure.code})")


def _denial(failure: Failure, bucket: str) -> str:
    if failure.code in _NO_CREDENTIALS:
        return f"there are no credentials for the bucket {bucket!r}"
    # Amazon says 403 for an object that is not there to whoever may not list the bucket.
    return f"the bucket {bucket!r} refuses these credentials, or they lack a right ({failure.code})"
