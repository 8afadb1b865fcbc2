"""A broker that goes away and comes back, and one that asks who is there."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme

from deploy.brokers.kafka import KafkaServer
from tests.kafka_orders import HANDLER, Orders, order, orders_of, send
from tests.processes import run_function
from tests.servers_kafka import new_name

pytestmark = pytest.mark.anyio

PASSWORD = "the canary of a password, with commas"
NEW_PASSWORD = "another canary"
CONFIGURE = "org.apache.kafka.tools.ConfigCommand"


async def test_consumer_goes_on_when_its_broker_is_back(tmp_path: Path) -> None:
    """What was in work is committed then, nothing is lost, and nothing that was settled before is repeated."""
    with KafkaServer(tmp_path / "kafka") as server:
        await server.create_topic("orders", 2)
        orders = orders_of(server, "orders", tmp_path)
        async with orders.function(PUBLISH_URL=f"{server.url}/orders") as function:
            await send(orders, [(f"k{n}", order(n)) for n in range(20)])
            await orders.all_handled(range(20))
            await asyncio.sleep(0.5)
            await send(orders, [(f"k{n}", order(n, seconds=1)) for n in range(20, 30)])
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            await send(orders, [(f"k{n}", order(n)) for n in range(30, 50)])
            await orders.all_handled(range(50), timeout_seconds=30)
            assert function.stop() == 0
        assert sum(offset for offset, _ in (await orders.committed()).values()) == 50
    begun = [note.number for note in orders.notes("begin")]
    assert [number for number in range(20) if begun.count(number) > 1] == []


@pytest.fixture
def certified(tmp_path: Path) -> tuple[Path, Path, trustme.CA]:
    """Give the paths of a certificate for localhost and its key, and who has signed it."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    return certificate, key, authority


async def refusal(env: dict[str, str]) -> str:
    """Run a function that must not start, and return its output."""
    async with run_function(HANDLER, JOURNAL="/dev/null", EVENTS_START_TIMEOUT="5s", **env).unwaited() as function:
        assert await function.exited() == 1
        return function.output()


async def test_signs_in_over_tls_and_takes_a_new_password(
    tmp_path: Path, certified: tuple[Path, Path, trustme.CA]
) -> None:
    """A wrong one stops the start; one that is replaced while the function runs fails no order."""
    certificate, key, authority = certified
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "ca").write_bytes(authority.cert_pem.bytes())
    (secrets / "password").write_text(PASSWORD)
    (secrets / "wrong").write_text("a canary that is not it")
    env = {"FAAS_SECRETS_DIR": str(secrets)}
    with KafkaServer(tmp_path / "kafka", users={"shop": PASSWORD}, tls=(certificate, key)) as server:
        await server.create_topic("orders", 2)
        place = f"kafka://shop@{server.bootstrap}/orders?group={new_name('group')}&tls=true"
        signed = f"{place}&ca_secret=ca&sasl=scram-sha-512"
        wrong = await refusal({**env, "EVENTS_URL": f"{signed}&password_secret=wrong"})
        assert f"EVENTS_URL cannot be used: the broker at {server.bootstrap} refuses the credentials" in wrong
        unknown = await refusal({**env, "EVENTS_URL": f"{place}&sasl=plain&password_secret=password"})
        assert "cannot be trusted" in unknown
        orders = Orders(server, "orders", tmp_path / "journal", "", access_of("shop", PASSWORD, authority))
        async with orders.function(**env, EVENTS_URL=f"{signed}&password_secret=password") as function:
            await send(orders, [("k", order(1))])
            await orders.all_handled([1])
            change = f"SCRAM-SHA-512=[password={NEW_PASSWORD}]"
            words = ("--alter", "--add-config", change, "--entity-type", "users", "--entity-name", "shop")
            await asyncio.to_thread(server.tool, CONFIGURE, *words)
            (secrets / "password").write_text(NEW_PASSWORD)
            await asyncio.to_thread(server.restart)
            orders.access = access_of("shop", NEW_PASSWORD, authority)
            await send(orders, [("k", order(2))])
            await orders.all_handled([2])
            output = function.output()
    assert "canary" not in output + wrong + unknown
    assert len(orders.notes("begin")) == 2


def access_of(user: str, password: str, authority: trustme.CA) -> dict[str, object]:
    """Return what a client needs to sign in."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    names = {"security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "ssl_context": context}
    return {**names, "sasl_plain_username": user, "sasl_plain_password": password}
