"""What every Signals adapter must do."""

import pytest
import redis

from adapters.streams import GROUP, TOPICS, StreamSignals, stream_key
from governor.errors import ConflictError, InputError, OutageError
from ports.signals import Signals, Topic
from tests.conftest import Valkey


@pytest.fixture(params=["streams"])
def signals(request: pytest.FixtureRequest, valkey: Valkey) -> Signals:
    return StreamSignals(valkey.url)


def test_a_topic_is_created_once(signals: Signals) -> None:
    assert signals.look("once") is Topic.ABSENT
    signals.create("once")
    signals.publish("once", b"{}")
    signals.create("once")
    assert signals.look("once") is Topic.READY
    assert signals.backlog("once") == 1


def test_what_is_published_waits_to_be_acknowledged(signals: Signals) -> None:
    signals.create("waits")

    ids = {signals.publish("waits", b"{}") for _ in range(3)}

    assert len(ids) == 3
    assert signals.backlog("waits") == 3


def test_a_topic_that_is_not_there_takes_nothing(signals: Signals) -> None:
    with pytest.raises(InputError, match="no topic"):
        signals.publish("nowhere", b"{}")
    assert signals.look("nowhere") is Topic.ABSENT


def test_a_message_has_a_bound(signals: Signals) -> None:
    signals.create("bound")

    with pytest.raises(InputError):
        signals.publish("bound", b"x" * (64 * 1024 + 1))


def test_a_deleted_topic_is_gone_with_its_messages(signals: Signals) -> None:
    signals.create("gone")
    signals.publish("gone", b"{}")
    signals.delete("gone")
    signals.delete("gone")

    assert signals.look("gone") is Topic.ABSENT
    signals.create("gone")
    assert signals.backlog("gone") == 0


@pytest.mark.parametrize("harm", ["no group", "not listed"])
def test_a_damaged_topic_is_seen_and_repaired_with_its_messages(
    signals: Signals, valkey: Valkey, harm: str
) -> None:
    signals.create("harmed")
    signals.publish("harmed", b"{}")
    with redis.Redis.from_url(valkey.url) as client:
        if harm == "no group":
            client.xgroup_destroy(stream_key("harmed"), GROUP)
        else:
            client.srem(TOPICS, "harmed")

    assert signals.look("harmed") is Topic.DAMAGED
    signals.create("harmed")
    assert signals.look("harmed") is Topic.READY
    assert signals.backlog("harmed") >= 1


def test_something_else_in_a_topics_place_is_refused_and_left(
    signals: Signals, valkey: Valkey
) -> None:
    with redis.Redis.from_url(valkey.url) as client:
        client.set(stream_key("taken"), "somebody's")

        assert signals.look("taken") is Topic.FOREIGN
        with pytest.raises(ConflictError, match="no topic of ours"):
            signals.create("taken")
        assert client.get(stream_key("taken")) == b"somebody's"


def test_a_server_that_is_not_there_is_an_outage() -> None:
    with pytest.raises(OutageError):
        StreamSignals("redis://127.0.0.1:1/0").create("x")
