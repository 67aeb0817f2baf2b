"""Dead letters: published again once actions are admitted, or receipted where that is no use."""

import dataclasses
from secrets import token_hex
from typing import Any

import pytest

from adapters.gcp.pubsub import DEAD_LETTERS, PubsubSignals
from ports import Ports
from tasks.actions.dead_letters import revive
from tests.engine.conftest import event
from tests.support.faults import Watched, Writes, outage
from tests.support.runs import receipts, subscribe
from tests.support.waiting import until

pytestmark = pytest.mark.parametrize("backend", ["google"], indirect=True)
CALL: dict[str, Any] = {"timeout": 10, "retry": None}


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def _dies(ports: Ports, account_id: str, data: bytes) -> None:
    """What Pub/Sub does after a hundred attempts in vain."""
    signals = ports.signals
    assert isinstance(signals, PubsubSignals)
    source = f"{signals._project}/subscriptions/tenants.{account_id}.signals"
    message = {"data": data, "attributes": {"CloudPubSubDeadLetterSourceSubscription": source}}
    topic = f"{signals._project}/topics/{DEAD_LETTERS}"
    signals._publisher.get().publish(request={"topic": topic, "messages": [message]}, **CALL)


def _listener(ports: Ports, account_id: str) -> str:
    """A subscription of the test's own, to see what is published to a tenant's topic."""
    signals = ports.signals
    assert isinstance(signals, PubsubSignals)
    name = f"{signals._project}/subscriptions/listener-{token_hex(4)}"
    topic = f"{signals._project}/topics/tenants.{account_id}.signals"
    signals._subscriber.get().create_subscription(request={"name": name, "topic": topic}, **CALL)
    return name


def _heard(ports: Ports, listener: str) -> list[bytes]:
    subscriber = ports.signals._subscriber.get()  # type: ignore[attr-defined]
    found = subscriber.pull(request={"subscription": listener, "max_messages": 10}, **CALL)
    return [each.message.data for each in found.received_messages]


def test_a_dead_letter_is_published_to_its_tenants_topic_again(ports: Ports) -> None:
    listener = _listener(ports, "acme")
    _dies(ports, "acme", b"late")

    assert until(lambda: revive(ports)) == 1

    assert _heard(ports, listener) == [b"late"]
    assert revive(ports) == 0


def test_a_dead_letter_of_no_tenant_any_more_is_receipted_and_buried(ports: Ports) -> None:
    _dies(ports, "gone", b"nobody's")

    until(lambda: revive(ports) or receipts(ports, "gone"))

    (proof,) = receipts(ports, "gone")
    assert (proof["operation"], proof["error_code"]) == ("signal_dead_lettered", "no-such-topic")
    assert revive(ports) == 0
    assert len(receipts(ports, "gone")) == 1


def test_a_letter_that_cannot_be_published_now_waits_and_holds_up_no_other(ports: Ports) -> None:
    listener = _listener(ports, "acme")
    for data in (b"one", b"two"):
        _dies(ports, "acme", data)
    signals = Watched(ports.signals, Writes(1, "lost", outage), "publish")

    assert until(lambda: revive(dataclasses.replace(ports, signals=signals))) == 1  # type: ignore[arg-type]

    assert len(_heard(ports, listener)) == 1


def test_what_came_from_no_subscription_of_ours_is_receipted_on_the_platforms_ledger(
    ports: Ports,
) -> None:
    _dies(ports, "not.ours", b"x")

    until(lambda: revive(ports) or receipts(ports, "_system"))

    assert [r["error_code"] for r in receipts(ports, "_system")] == ["no-tenant"]
