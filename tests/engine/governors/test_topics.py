"""Topics are made good after Memory was lost; one that cannot be holds up no other."""

import dataclasses

import pytest
import redis

from ports import Ports
from ports.documents import Update
from ports.signals import Topic
from tasks.governors import topics
from tests.conftest import Valkey
from tests.engine.conftest import event
from tests.support.runs import subscribe

ACCOUNTS = ("a", "b", "c")


@pytest.fixture(autouse=True)
def _governors(ports: Ports) -> None:
    for account_id in ACCOUNTS:
        subscribe(ports, event(account_id=account_id, event_id=f"e-{account_id}"))


def _looks(ports: Ports) -> list[Topic]:
    return [ports.signals.look(account_id, "us-central1") for account_id in ACCOUNTS]


def test_every_topic_that_was_lost_is_there_again(ports: Ports, valkey: Valkey) -> None:
    redis.Redis.from_url(valkey.url).flushdb()

    assert topics.repair(ports) == ""

    assert _looks(ports) == [Topic.READY] * 3


def test_what_is_somebody_elses_holds_up_no_other(ports: Ports, valkey: Valkey) -> None:
    client = redis.Redis.from_url(valkey.url)
    client.flushdb()
    client.set("ggen:stream:tenants.a.signals", "somebody's")

    assert topics.repair(ports) == ""

    assert _looks(ports) == [Topic.FOREIGN, Topic.READY, Topic.READY]


def test_a_long_list_is_gone_through_by_one_message_after_the_other(
    ports: Ports, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "PATIENCE_S", -1.0)
    redis.Redis.from_url(valkey.url).flushdb()
    reached, seen = "", []
    while reached := topics.repair(dataclasses.replace(ports), reached):
        seen.append(reached)

    assert seen == [f"tenants/{account_id}" for account_id in ACCOUNTS]
    assert _looks(ports) == [Topic.READY] * 3


@pytest.mark.parametrize(
    ("state", "expected"), [("decommissioned", Topic.ABSENT), ("draining", Topic.DAMAGED)]
)
def test_a_governor_that_ends_while_its_topic_is_repaired_has_none_left(
    ports: Ports, valkey: Valkey, state: str, expected: Topic
) -> None:
    class Ending:
        def __getattr__(self, name: str) -> object:
            return getattr(ports.signals, name)

        def create(self, account_id: str, region: str) -> None:
            ports.signals.create(account_id, region)
            found = ports.documents.get(f"tenants/{account_id}")
            if found and account_id == "b":
                ended = Update(found.path, {**found.data, "state": state}, found.revision)
                ports.documents.commit([ended])

    redis.Redis.from_url(valkey.url).flushdb()

    topics.repair(dataclasses.replace(ports, signals=Ending()))  # type: ignore[arg-type]

    assert _looks(ports) == [Topic.READY, expected, Topic.READY]
