"""Deploy a function as the stack file has it, beside a gateway and a webhook that keep what it sends."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.images.engine import Engine
from deploy.images.project import Function, additional_packages
from faasbase.testing import signed
from tests.e2e.conftest import Build
from tests.e2e.containers import PORT, Container, run_container
from tests.e2e.gateway import Gateway, Posted, gateway, host_address
from tests.wire import Answer, call

SECRETS = "/var/openfaas/secrets"
KEY = "whsec_c2VjcmV0LWNhbmFyeS1vZi1ldmVudHM="
OTHER_KEY = "whsec_YW5vdGhlci1zZWNyZXQtb2YtZXZlbnRz"
GATEWAY = "http://gateway.openfaas:8080/"
WEBHOOK = "/webhook"


@dataclass(frozen=True)
class Deployed:
    """A function, the container that it runs in, and where it sends what is for others."""

    function: Function
    container: Container
    gateway: Gateway

    async def call(
        self, path: str, body: bytes = b"", *, port: int = PORT, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Call it, with POST where there are *headers*, which say what *body* is."""
        method = "POST" if headers else "GET"
        host = self.container.address
        return await call(port, path, host=host, method=method, headers=dict(headers or {}), body=body)

    async def push(self, event_type: str, data: object, key: str = KEY) -> Answer:
        """Push an event to it, signed with *key*, as the queue does that a function has published to."""
        told = {"ce-specversion": "1.0", "ce-id": uuid.uuid4().hex, "ce-source": "/e2e", "ce-type": event_type}
        sent = signed(data, key)
        return await self.call("/", sent["content"], headers={**told, **sent["headers"]})

    def sent(self) -> Posted:
        """Return what it has sent last, whose signature is good."""
        last = self.gateway.taken[-1]
        number, sent_at = last.headers["webhook-id"], float(last.headers["webhook-timestamp"])
        expected: Mapping[str, str] = signed(last.body, KEY, message_id=number, sent_at=sent_at)["headers"]
        assert last.headers["webhook-signature"] == expected["webhook-signature"]
        return last


@contextlib.contextmanager
def deploy(engine: Engine, build: Build, function: Function) -> Iterator[Deployed]:
    """Build *function* on the shared base and run it as the stack file deploys it, beside a gateway and a webhook."""
    packages = additional_packages(function)
    image = build(function.handler, function.name, **{**function.build_args, "ADDITIONAL_PACKAGE": packages})
    # The name of a pod ends as a ReplicaSet makes it.
    hostname = ("--hostname", f"{function.name}-6d4f9c7b8-x2k5p")
    with gateway() as taking, secrets(function) as volumes:
        env = environment(function, f"{host_address(engine)}:{taking.port}")
        running = run_container(engine, image, limits=function.limits, env=env, volumes=volumes, options=hostname)
        with running as container:
            yield Deployed(function, container, taking)


def environment(function: Function, outside: str) -> Mapping[str, str]:
    """Return the stack file's environment of *function*, with the gateway and a webhook at *outside*."""
    # faas-cli sends the template's fprocess along.
    env = {"fprocess": "python index.py", **(function.environment or {})}
    env = {name: value.replace(GATEWAY, f"http://{outside}/") for name, value in env.items()}
    return {**env, "WEBHOOK_URL": f"http://{outside}{WEBHOOK}"} if "WEBHOOK_URL" in env else env


@contextlib.contextmanager
def secrets(function: Function) -> Iterator[Sequence[str]]:
    """Give the mount of the secrets that *function* asks for, all with the same key."""
    with tempfile.TemporaryDirectory(prefix="secrets-") as folder:
        Path(folder).chmod(0o755)
        for name in function.secrets:
            Path(folder, name).write_text(KEY)
        yield [f"{folder}:{SECRETS}:ro"] if function.secrets else []
