"""What every Signals adapter must do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import redis
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import PublisherClient, SubscriberClient

from adapters.gcp.monitoring import MonitoredLag
from adapters.gcp.pubsub import PubsubSignals, Push
from adapters.valkey.streams import GROUP, TOPICS, StreamSignals, stream_key
from governor.errors import ConflictError, InputError, OutageError
from governor.paths import topic_name
from ports.signals import Signals, Topic, Waiting
from tests.conftest import Valkey
from tests.support import live
from tests.support.arrivals import Arrivals, arrivals
from tests.support.live import new_project
from tests.support.waiting import until

REGION = "us-central1"
CALL = {"timeout": 10, "retry": None}


@dataclass
class Service:
    """Signals on a real service, and the ways to look at it and to harm it from outside."""

    signals: Signals
    waiting: Callable[[str], int]
    """How many messages of an account are known to wait."""
    harm: dict[str, Callable[[str], None]]
    occupy: Callable[[str], Callable[[], object]]
    """Put something of another's in the place of a topic; how to look whether it is still there."""


def streams(valkey: Valkey) -> Service:
    def no_group(account_id: str) -> None:
        with redis.Redis.from_url(valkey.url) as client:
            client.xgroup_destroy(stream_key(account_id), GROUP)

    def not_listed(account_id: str) -> None:
        with redis.Redis.from_url(valkey.url) as client:
            client.srem(TOPICS, account_id)

    def occupy(account_id: str) -> Callable[[], object]:
        def look() -> object:
            with redis.Redis.from_url(valkey.url) as client:
                return client.get(stream_key(account_id))

        with redis.Redis.from_url(valkey.url) as client:
            client.set(stream_key(account_id), "somebody's")
        return look

    signals = StreamSignals(valkey.url)

    def no_stream(account_id: str) -> None:
        with redis.Redis.from_url(valkey.url) as client:
            client.delete(stream_key(account_id))

    harm = {"no delivery": no_group, "elsewhere": not_listed, "bound to nothing": no_stream}
    return Service(signals, signals.backlog, harm, occupy)


class PubsubOutside:
    """What others may do to a tenant's topic and subscription."""

    def __init__(self, signals: PubsubSignals, project: str) -> None:
        self._publisher: PublisherClient = signals._publisher.get()
        self._subscriber: SubscriberClient = signals._subscriber.get()
        self._project = f"projects/{project}"

    def _topic(self, account_id: str) -> str:
        return f"{self._project}/topics/{topic_name(account_id)}"

    def _subscription(self, account_id: str) -> str:
        return f"{self._project}/subscriptions/{topic_name(account_id)}"

    def push_elsewhere(self, account_id: str) -> None:
        harmed = {
            "name": self._subscription(account_id),
            "topic": self._topic(account_id),
            "push_config": {"push_endpoint": "https://elsewhere.example.com/"},
        }
        request = {"subscription": harmed, "update_mask": FieldMask(paths=["push_config"])}
        self._subscriber.update_subscription(request=request, **CALL)

    def unsubscribe(self, account_id: str) -> None:
        request = {"subscription": self._subscription(account_id)}
        self._subscriber.delete_subscription(request=request, **CALL)

    def delete_topic_alone(self, account_id: str) -> None:
        self._publisher.delete_topic(request={"topic": self._topic(account_id)}, **CALL)

    def occupy(self, account_id: str) -> Callable[[], object]:
        name = self._topic(account_id)
        made = {"name": name, "labels": {"owner": "somebody"}}
        self._publisher.create_topic(request=made, **CALL)
        return lambda: dict(self._publisher.get_topic(request={"topic": name}, **CALL).labels)


def pubsub(host: str, arrived: Arrivals) -> Service:
    project = new_project()
    push = Push(arrived.url if host else live.PUSH_URL)
    lag = MonitoredLag(project, is_emulated=bool(host))
    signals = PubsubSignals(project, push, lag, emulator_host=host)
    outside = PubsubOutside(signals, project)

    def waiting(account_id: str) -> int:
        if not host:
            pytest.skip("Google cannot push to this machine")
        return len(arrived.seen[account_id])

    harm = {
        "no delivery": outside.unsubscribe,
        "elsewhere": outside.push_elsewhere,
        "bound to nothing": outside.delete_topic_alone,
    }
    return Service(signals, waiting, harm, outside.occupy)


@pytest.fixture(params=["streams", "pubsub"])
def service(request: pytest.FixtureRequest, valkey: Valkey) -> Iterator[Service]:
    if request.param == "streams":
        made = streams(valkey)
        yield made
        made.signals.close()
        return
    host = request.getfixturevalue("pubsub")
    with arrivals() as arrived:
        made = pubsub(host, arrived)
        yield made
        made.signals.close()


@pytest.fixture
def signals(service: Service) -> Signals:
    return service.signals


def test_a_topic_is_created_once(service: Service, signals: Signals) -> None:
    assert signals.look("once", REGION) is Topic.ABSENT
    signals.create("once", REGION)
    signals.publish("once", b"{}")
    signals.create("once", REGION)
    assert signals.look("once", REGION) is Topic.READY
    until(lambda: service.waiting("once") == 1)


def test_what_is_published_waits_to_be_acknowledged(service: Service, signals: Signals) -> None:
    signals.create("waits", REGION)

    ids = {signals.publish("waits", b"{}") for _ in range(3)}

    assert len(ids) == 3
    until(lambda: service.waiting("waits") == 3)


def test_how_much_waits_is_told(
    request: pytest.FixtureRequest, service: Service, signals: Signals
) -> None:
    if live.PROJECT:
        pytest.skip("Cloud Monitoring sees it two minutes later")
    if "pubsub" in request.node.name:
        request.applymarker(
            pytest.mark.xfail(reason="the emulator has no Cloud Monitoring", raises=OutageError)
        )
    signals.create("told", REGION)
    signals.publish("told", b"{}")

    assert signals.backlog("told") == 1


def test_a_topic_that_is_not_there_takes_nothing(signals: Signals) -> None:
    with pytest.raises(InputError, match="no topic"):
        signals.publish("nowhere", b"{}")
    assert signals.look("nowhere", REGION) is Topic.ABSENT


def test_a_message_has_a_bound(signals: Signals) -> None:
    signals.create("bound", REGION)

    with pytest.raises(InputError):
        signals.publish("bound", b"x" * (64 * 1024 + 1))


def test_a_deleted_topic_is_gone_with_its_messages(service: Service, signals: Signals) -> None:
    signals.create("gone", REGION)
    signals.publish("gone", b"{}")
    until(lambda: service.waiting("gone") == 1)
    signals.delete("gone")
    signals.delete("gone")

    assert signals.look("gone", REGION) is Topic.ABSENT
    with pytest.raises(InputError):
        signals.publish("gone", b"{}")
    signals.create("gone", REGION)
    assert signals.look("gone", REGION) is Topic.READY


@pytest.mark.parametrize("harm", ["no delivery", "elsewhere", "bound to nothing"])
def test_a_damaged_topic_is_seen_and_repaired_and_delivers(
    service: Service, signals: Signals, harm: str
) -> None:
    signals.create("harmed", REGION)
    service.harm[harm]("harmed")

    assert signals.look("harmed", REGION) is Topic.DAMAGED
    signals.create("harmed", REGION)
    assert signals.look("harmed", REGION) is Topic.READY
    signals.publish("harmed", b"{}")
    until(lambda: service.waiting("harmed") >= 1)


def test_a_damaged_topic_keeps_its_messages(service: Service, signals: Signals) -> None:
    signals.create("kept", REGION)
    service.harm["elsewhere"]("kept")
    signals.publish("kept", b"{}")
    signals.create("kept", REGION)

    until(lambda: service.waiting("kept") == 1)


def test_something_else_in_a_topics_place_is_refused_and_left(
    service: Service, signals: Signals
) -> None:
    look = service.occupy("taken")
    before = look()

    assert signals.look("taken", REGION) is Topic.FOREIGN
    with pytest.raises(ConflictError, match="no topic of ours"):
        signals.create("taken", REGION)
    assert look() == before


def test_what_can_be_delivered_is_no_dead_letter(signals: Signals) -> None:
    signals.create("alive", REGION)
    signals.publish("alive", b"{}")

    assert not signals.dead_letters(10)


def test_a_server_that_is_not_there_is_an_outage() -> None:
    gone = StreamSignals("redis://127.0.0.1:1/0")
    for call in (
        lambda: gone.create("x", REGION),
        lambda: gone.look("x", REGION),
        lambda: gone.publish("x", b""),
    ):
        with pytest.raises(OutageError):
            call()


def test_what_is_taken_comes_again_until_it_is_dropped(signals: Signals) -> None:
    signals.create("left-there", REGION)
    signals.stop_pushing("left-there")
    for n in range(3):
        signals.publish("left-there", b"%d" % n)
    found: dict[str, Waiting] = {}

    def all_three() -> bool:
        found.update({each.message_id: each for each in signals.take("left-there", 10)})
        return len(found) == 3

    until(all_three)
    assert sorted(each.data for each in found.values()) == [b"0", b"1", b"2"]
    if not signals.lets_rest:  # where a message rests once it was taken, it comes again later
        assert {each.message_id for each in signals.take("left-there", 10)} == set(found)
    signals.drop("left-there", list(found.values()))
    signals.drop("left-there", list(found.values()))
    signals.drop("left-there", [])

    assert signals.take("left-there", 10) == []
    if not signals.lets_rest:
        assert signals.backlog("left-there") == 0


def test_of_a_topic_that_is_gone_nothing_is_taken(signals: Signals) -> None:
    signals.stop_pushing("never")

    assert signals.take("never", 10) == []
    signals.drop("never", [Waiting("1", b"", "1-1")])
