"""
What can go wrong with objects.

    FaasError
    └── StorageError              the store could not do it; says which operation on which key, and why
        ├── ObjectNotFoundError   there is no object under the key
        ├── ObjectKeyError        the key may not be used
        ├── ObjectTooLargeError   the object has more bytes than the caller takes
        ├── ChecksumError         the bytes are not those that were stored or announced
        ├── ObjectChangedError    the object was replaced while it was being read
        ├── StoreDeniedError      the store refuses the function's credentials, or what it wants to do
        └── StoreUnavailableError the store did not answer in time, or asks to come back later; a Problem (503) as well
"""

from ..errors import FaasError, Problem


class StorageError(FaasError):
    """*operation* on *key* failed."""

    def __init__(self, operation: str, key: str, reason: str) -> None:
        self.operation, self.key, self.reason = operation, key, reason
        super().__init__(f"{operation} {key!r}: {reason}")


class ObjectNotFoundError(StorageError):
    """There is no object under *key*."""

    def __init__(self, operation: str, key: str) -> None:
        super().__init__(operation, key, "there is no such object")


class ObjectKeyError(StorageError):
    """*key* may not be used, for *reason*."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__("use", key[:80], reason)


class ObjectTooLargeError(StorageError):
    """The object has *size_bytes*, and the caller takes at most *max_bytes*."""

    def __init__(self, key: str, size_bytes: int, max_bytes: int) -> None:
        self.size_bytes, self.max_bytes = size_bytes, max_bytes
        super().__init__("get", key, f"has {size_bytes} bytes, over max_bytes={max_bytes}: read it with open()")


class ChecksumError(StorageError):
    """The bytes under *key* do not have the SHA-256 that they should."""

    def __init__(self, operation: str, key: str) -> None:
        super().__init__(operation, key, "the SHA-256 of the bytes is not the expected one")


class ObjectChangedError(StorageError):
    """The object under *key* was replaced while it was being read; reading it again gives the new one."""

    def __init__(self, operation: str, key: str) -> None:
        super().__init__(operation, key, "the object was replaced meanwhile")


class StoreDeniedError(StorageError):
    """The store refuses the function's credentials, or they do not allow the operation; *reason* says what it said."""


class StoreUnavailableError(StorageError, Problem):
    """
    The store could not be reached, failed, or was too busy, until the operation's time was over.

    A caller is told 503 with ``Retry-After``, and neither key nor reason, unless the function catches it.
    """

    def __init__(self, operation: str, key: str, reason: str) -> None:
        Problem.__init__(self, 503, "the object store is not available now", retry_after_seconds=5)
        self.operation, self.key, self.reason = operation, key, reason
        self.args = (f"{operation} {key!r}: {reason}",)
