"""The way to a Kafka cluster: TLS and credentials as they are now, what is there, and what a refusal means."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.protocol.metadata import MetadataRequest

from ...errors import SecretMissingError, SettingError
from ...resilience import look_pause
from ...secrets import Secret
from .logs import quieten
from .place import KafkaPlace

logger = logging.getLogger("faasbase.events")
Answer = TypeVar("Answer")

REQUEST_SECONDS = 15.0
_CONNECT_SECONDS = 10.0
_TELL_SECONDS = 5.0
_MOST_REPLICAS = 3
_REFUSED = (
    errors.AuthenticationFailedError,
    errors.SaslAuthenticationFailed,
    errors.UnsupportedSaslMechanismError,
    errors.IllegalSaslStateError,
)
_NO_SUCH_TOPIC = (errors.UnknownTopicOrPartitionError.errno, errors.InvalidTopicError.errno)


class KafkaAccess:
    """
    How clients get to *place*: their arguments, and new credentials for those that live on.

    Raises:
        SettingError: The certificates are none.
    """

    def __init__(self, place: KafkaPlace) -> None:
        self.place = place
        self._trusted: tuple[str, ssl.SSLContext] | None = None
        self.connection()
        quieten()

    def connection(self) -> dict[str, Any]:
        """
        Return what each connection takes: TLS, and the credentials that are valid now.

        Raises:
            SecretMissingError: A secret is not there any more.
        """
        place = self.place
        protocol = f"{'SASL_' if place.mechanism else ''}{'SSL' if place.tls else 'PLAINTEXT'}"
        given: dict[str, Any] = {"security_protocol": protocol}
        if place.tls:
            given["ssl_context"] = self._tls()
        if place.mechanism:
            given |= {"sasl_mechanism": place.mechanism, "sasl_plain_username": place.username}
            given["sasl_plain_password"] = _text(place.password)
        return given

    def client(self) -> dict[str, Any]:
        """Return what each client takes."""
        return {
            "bootstrap_servers": list(self.place.servers),
            "request_timeout_ms": int(REQUEST_SECONDS * 1000),
            **self.connection(),
        }

    def renew(self, client: AIOKafkaClient) -> None:
        """Let *client* make its next connections with the credentials and certificates that are valid now."""
        if not (self.place.mechanism or self.place.tls):
            return
        with suppress(SecretMissingError):
            for name, value in self.connection().items():
                # The library has no way to replace them; it reads these for each connection anew.
                setattr(client, f"_{name}", value)

    async def reach(self) -> None:
        """
        Wait until a server of the place answers; whoever calls bounds that.

        Raises:
            SettingError: It refuses who asks.
        """
        tries = 0
        while not await self._answers():
            await asyncio.sleep(look_pause(tries))
            tries += 1

    async def _answers(self) -> bool:
        for server in self.place.servers:
            host, _, port = server.rpartition(":")
            try:
                connection = await create_conn(
                    host.strip("[]"), int(port), request_timeout_ms=int(_CONNECT_SECONDS * 1000), **self.connection()
                )
            except _REFUSED as exc:
                raise SettingError(self.place.setting, f"the broker at {server} refuses the credentials") from exc
            except ssl.SSLCertVerificationError as exc:
                reason = f"the certificate of the broker at {server} cannot be trusted: {exc.verify_message}"
                raise SettingError(self.place.setting, reason) from exc
            except (OSError, TimeoutError, errors.KafkaError):
                continue
            await connection.close()
            return True
        return False

    def _tls(self) -> ssl.SSLContext:
        certificates = _text(self.place.ca)
        if self._trusted is None or self._trusted[0] != certificates:
            try:
                self._trusted = certificates, ssl.create_default_context(cadata=certificates or None)
            except (ssl.SSLError, ValueError):
                reason = "the secret of ca_secret holds no certificates (PEM)"
                raise SettingError(self.place.setting, reason) from None
        return self._trusted[1]


async def patiently(setting: str, ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """
    Return what *ask* does, asking again while the cluster cannot answer; whoever calls bounds that.

    Raises:
        SettingError: It refuses what the value of *setting* has it asked.
    """
    try:
        return await until_answered(ask)
    except errors.KafkaError as exc:
        raise SettingError(setting, f"the broker refuses: {type(exc).__name__}") from exc


async def until_answered(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """
    Return what *ask* does, asking again while the cluster cannot answer; whoever calls bounds that.

    Raises:
        KafkaError: Asking again would not help.
    """
    tries, told_at = 0, time.monotonic()
    while True:
        try:
            return await ask()
        except (TimeoutError, errors.KafkaError) as exc:
            if not isinstance(exc, (TimeoutError, errors.KafkaTimeoutError)) and not exc.retriable:
                raise
            if time.monotonic() - told_at > _TELL_SECONDS:
                told_at = time.monotonic()
                logger.warning("the cluster cannot answer now, trying on: %s", type(exc).__name__)
        await asyncio.sleep(look_pause(tries))
        tries += 1


@asynccontextmanager
async def metadata_client(access: KafkaAccess) -> AsyncIterator[AIOKafkaClient]:
    """Give a client for questions about the cluster."""
    client = AIOKafkaClient(**access.client())
    try:
        await client.bootstrap()
        yield client
    finally:
        await client.close()


async def missing_topics(client: AIOKafkaClient, topics: Iterable[str]) -> list[str]:
    """
    Return those of *topics* that do not exist; none is made by asking.

    Raises:
        KafkaError: Nobody answers.
    """
    request = MetadataRequest(sorted(topics), allow_auto_topic_creation=False)
    answer = await client.send(client.get_random_node(), request)
    return [topic for code, topic, *_ in answer.topics if code in _NO_SUCH_TOPIC]


async def check_topics(access: KafkaAccess, topics: Iterable[str]) -> None:
    """
    Make sure that all *topics* exist.

    Raises:
        SettingError: One does not, or may not be seen.
    """
    async with metadata_client(access) as client:
        request = MetadataRequest(sorted(topics), allow_auto_topic_creation=False)
        answer = await client.send(client.get_random_node(), request)
    for code, topic, *_ in answer.topics:
        if code in _NO_SUCH_TOPIC:
            raise SettingError(access.place.setting, f"there is no topic {topic} at {access.place.shown}")
        if code == errors.TopicAuthorizationFailedError.errno:
            raise SettingError(access.place.setting, f"the broker lets nobody of that name see the topic {topic}")


async def make_topic(access: KafkaAccess, config: Mapping[str, str]) -> None:
    """
    Make the topic of the place where it does not exist.

    Raises:
        SettingError: The broker refuses.
    """
    place = access.place
    async with metadata_client(access) as client:
        if not await missing_topics(client, place.topics):
            return
        replicas = min(_MOST_REPLICAS, len(client.cluster.brokers()))
    admin = AIOKafkaAdminClient(**access.client())
    try:
        await admin.start()
        answer = await admin.create_topics([NewTopic(place.topic, 1, replicas, topic_configs=dict(config))])
    finally:
        await admin.close()
    for _, code, *_ in answer.topic_errors:
        if code not in (0, errors.TopicAlreadyExistsError.errno):
            reason = errors.for_code(code).__name__
            raise SettingError(place.setting, f"the topic {place.topic} cannot be made at {place.shown}: {reason}")


def _text(secret: Secret | None) -> str:
    return secret.reveal().get_secret_value().strip() if secret else ""
