"""aioboto3, with what it lacks: imported by `s3_library` alone, since this costs a third of a second."""

import logging
from typing import Any

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.credentials import ReadOnlyCredentials

from .s3_credentials import Signing

_MODELS = (("s3", "service-2"), ("s3", "endpoint-rule-set-1"))
_DATA = ("endpoints", "partitions", "sdk-default-configuration", "_retry")


class CheckedConnections(AIOHTTPSession):  # type: ignore[misc]
    """Connections to servers whose certificates are for them: the library takes everybody's that is well signed."""

    def _get_ssl_context(self) -> Any:
        # It has this switched off by botocore, which looks at the name in another place.
        context = super()._get_ssl_context()
        context.check_hostname = True
        return context


class CheckedSession(AioSession):  # type: ignore[misc]
    """Makes clients with such connections, those that fetch credentials included."""

    def create_client(self, *arguments: Any, **options: Any) -> Any:
        config = options.get("config") or AioConfig()
        config.http_session_cls = CheckedConnections
        return super().create_client(*arguments, **{**options, "config": config})


class FromFiles(AioCredentials):  # type: ignore[misc]
    """The library's kind of credentials: asked for by every request, hence never those of before."""

    def __init__(self, signing: Signing) -> None:
        super().__init__("", "", method="secret files")
        self._signing = signing

    async def get_frozen_credentials(self) -> Any:
        pair = self._signing.chosen()
        return ReadOnlyCredentials(pair.access_key.get_secret_value(), pair.secret_key.get_secret_value(), None)


class OnlyFiles:
    """What takes the place of the chain that looks for credentials in the environment."""

    def __init__(self, signing: Signing) -> None:
        self._signing = signing

    async def load_credentials(self) -> FromFiles:
        return FromFiles(self._signing)


def session_of(signing: Signing | None) -> Any:
    """Return a session that has read S3's model; without *signing* the environment has the credentials."""
    for name in ("aiobotocore", "botocore"):
        # On DEBUG it writes what it signs and the signatures; on INFO where credentials were found, at every start.
        logging.getLogger(name).setLevel(logging.WARNING)
    session = CheckedSession()
    if signing is not None:
        session.register_component("credential_provider", OnlyFiles(signing))
    loader = session.get_component("data_loader")
    for service, model in _MODELS:
        loader.load_service_model(service, model)
    for data in _DATA:
        loader.load_data(data)
    return aioboto3.Session(botocore_session=session)
