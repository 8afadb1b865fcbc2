"""
Apache Kafka: one node in KRaft mode, broker and controller at once, from the jars that ``pom.xml`` names.

``with KafkaServer(folder) as server`` gives one that answers.  Beside the listener for clients there is one without
passwords for topics and tools, so that these work whatever clients have to show.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from .jars import kafka_jars
from .processes import SHOWN_CHARACTERS, Server, ServerError, reserve_port

MODULES = {
    "PLAIN": "plain.PlainLoginModule",
    "SCRAM-SHA-256": "scram.ScramLoginModule",
    "SCRAM-SHA-512": "scram.ScramLoginModule",
}
SCRAM_ITERATIONS = 4096
TOOL_SECONDS = 60.0
CREATE_MILLISECONDS = 15_000
# A quick start before throughput: nothing here runs long enough for the second compiler to pay.
JAVA = ("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
STARTED = "Kafka Server started"
LOGGING = """\
rootLogger.level=warn
rootLogger.appenderRef.output.ref=output
appender.output.type=Console
appender.output.name=output
appender.output.layout.type=PatternLayout
appender.output.layout.pattern=%d %p %m%n
logger.life.name=kafka.server.KafkaRaftServer
logger.life.level=info
"""
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "INTERNAL",
    "auto.create.topics.enable": "false",
    "num.partitions": "1",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    # Sessions as short as a test wants them.
    "group.min.session.timeout.ms": "100",
    "log.retention.ms": "-1",
    # One that was killed is let in again only when its last session is over.
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
}


class KafkaServer(Server):
    """
    A Kafka of its caller's own, with its files in *folder*.

    With *users*, names and passwords, clients sign in by PLAIN or SCRAM; *tls* is the paths of certificate and key.
    *settings* go before those of the server's properties that stand here.
    """

    name = "Kafka"

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        tls: tuple[Path, Path] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self._users, self._tls, self._settings = dict(users or {}), tls, dict(settings or {})
        self.port, self._internal_port, self._controller_port = (reserve_port() for _ in range(3))

    @property
    def bootstrap(self) -> str:
        """The address of the listener for clients, as they take it."""
        # Certificates name hosts; without one, no name needs to be looked up.
        return f"{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    @property
    def url(self) -> str:
        return f"kafka://{self.bootstrap}"

    @property
    def security_protocol(self) -> str:
        """What clients have to speak, by Kafka's name for it."""
        return f"{'SASL_' if self._users else ''}{'SSL' if self._tls else 'PLAINTEXT'}"

    async def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> None:
        """Make the topic *name* with *config*; raise `ServerError` where Kafka refuses."""
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        admin = AIOKafkaAdminClient(bootstrap_servers=self._internal, request_timeout_ms=CREATE_MILLISECONDS)
        try:
            await admin.start()
            topic = NewTopic(name, partitions, 1, topic_configs=dict(config or {}))
            answer = await admin.create_topics([topic], timeout_ms=CREATE_MILLISECONDS)
        finally:
            await admin.close()
        for topic_name, code, reason in answer.topic_errors:
            if code:
                raise ServerError(f"Kafka makes no topic {topic_name}: error {code}, {reason}")

    def tool(self, tool: str, *arguments: str, given: str = "") -> str:
        """Run one of Kafka's own tools, a Java class, with *given* as its input, and return what it prints."""
        return self._java(tool, "--bootstrap-server", self._internal, *arguments, given=given)

    @property
    def _internal(self) -> str:
        return f"127.0.0.1:{self._internal_port}"

    def _command(self) -> list[str]:
        properties = self.folder / "server.properties"
        if not properties.exists():
            self._format(properties)
        return [*self._jvm(), "kafka.Kafka", str(properties)]

    def _answers(self) -> bool:
        # The line comes when the broker may lead: a listener takes connections before that.
        return STARTED in self.output()

    def _jvm(self) -> list[str]:
        return [*JAVA, f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}", "-cp", f"{kafka_jars()}/*"]

    def _java(self, main: str, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [*self._jvm(), main, *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise ServerError(f"{main} fails:\n{(done.stdout + done.stderr)[-SHOWN_CHARACTERS:]}")
        return done.stdout

    def _format(self, properties: Path) -> None:
        """Write the settings and an empty log that knows the users."""
        (self.folder / "log4j2.properties").write_text(LOGGING)
        new = properties.with_suffix(".new")
        new.write_text("".join(f"{name}={_escaped(value)}\n" for name, value in self._properties().items()))
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        users = [word for user in self._users.items() for scram in _scram(*user) for word in ("--add-scram", scram)]
        # One in 64 begins with a dash.
        self._java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(new), *users)
        new.replace(properties)

    def _properties(self) -> dict[str, str]:
        internal, controller = f"INTERNAL://{self._internal}", f"127.0.0.1:{self._controller_port}"
        return {
            **SETTINGS,
            "listeners": f"CLIENTS://127.0.0.1:{self.port},{internal},CONTROLLER://{controller}",
            "advertised.listeners": f"CLIENTS://{self.bootstrap},{internal}",
            "listener.security.protocol.map": (
                f"CLIENTS:{self.security_protocol},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.folder / "data"),
            **dict(self._sasl()),
            **self._keystore(),
            **self._settings,
        }

    def _sasl(self) -> Iterator[tuple[str, str]]:
        if not self._users:
            return
        yield "sasl.enabled.mechanisms", ",".join(MODULES)
        passwords = "".join(f" user_{user}={_quoted(password)}" for user, password in self._users.items())
        for mechanism, module in MODULES.items():
            known = passwords if mechanism == "PLAIN" else ""
            name = f"listener.name.clients.{mechanism.lower()}.sasl.jaas.config"
            yield name, f"org.apache.kafka.common.security.{module} required{known};"

    def _keystore(self) -> dict[str, str]:
        if not self._tls:
            return {}
        from cryptography.hazmat.primitives import serialization

        certificate, key = (path.read_bytes() for path in self._tls)
        # Kafka reads a key in PKCS #8 only.
        converted = serialization.load_pem_private_key(key, password=None).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self.folder / "keystore.pem"
        path.touch(mode=0o600)
        path.write_bytes(converted + certificate)
        return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(path)}


def _scram(user: str, password: str) -> Iterator[str]:
    """Yield the credentials of *user* as Kafka stores them: the tool takes no comma in a password."""
    for digest in ("sha256", "sha512"):
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac(digest, password.encode(), salt, SCRAM_ITERATIONS)
        fields = {"salt": salt, "saltedpassword": salted}
        encoded = "".join(f',{name}="{base64.b64encode(value).decode()}"' for name, value in fields.items())
        yield f"SCRAM-SHA-{digest[-3:]}=[name={user},iterations={SCRAM_ITERATIONS}{encoded}]"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _escaped(text: str) -> str:
    """Return *text* as the value of a Java property."""
    return text.replace("\\", "\\\\").replace("\n", "\\n")
