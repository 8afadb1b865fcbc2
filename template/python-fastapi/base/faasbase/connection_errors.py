"""
What can go wrong on the way to a server that several parts share; messages name no address, no key and no secret.

    FaasError
    └── ConnectionsError      the server cannot be asked now
        ├── CredentialsError  it refuses the name or the password, or there is none to show
        └── RefusedError      it was asked, and answers with an error (`code`)
"""

from .errors import FaasError


class ConnectionsError(FaasError):
    """The server cannot be asked now, or was lost while it was asked: what was done is not known then."""


class CredentialsError(ConnectionsError):
    """The server refuses the name or the password; nothing was done."""


class RefusedError(ConnectionsError):
    """The server answers with an error, whose name is *code* (``OOM``, ``READONLY``, ``NOPERM``); nothing was done."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the server answers with {code}")
