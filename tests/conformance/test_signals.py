"""What every Signals adapter must do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from secrets import token_hex

import pytest
import redis
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import PublisherClient, SubscriberClient

from adapters.monitoring import MonitoredLag
from adapters.pubsub import PubsubSignals, Push
from adapters.streams import GROUP, TOPICS, StreamSignals, stream_key
from governor.errors import ConflictError, InputError, OutageError
from governor.records import topic_name
from ports.signals import Signals, Topic
from tests.arrivals import Arrivals, arrivals
from tests.conftest import Valkey
from tests.waiting import until

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
    harm = {"no delivery": no_group, "elsewhere": not_listed}
    return Service(signals, signals.backlog, harm, occupy)


def pubsub(host: str, arrived: Arrivals) -> Service:
    project = f"p-{token_hex(6)}"
    signals = PubsubSignals(
        project, Push(arrived.url), MonitoredLag(project, is_emulated=True), emulator_host=host
    )

    def names(account_id: str) -> tuple[str, str]:
        name = topic_name(account_id)
        return f"projects/{project}/topics/{name}", f"projects/{project}/subscriptions/{name}"

    def publisher() -> PublisherClient:
        return signals._publisher.get()  # type: ignore[no-any-return]

    def subscriber() -> SubscriberClient:
        return signals._subscriber.get()  # type: ignore[no-any-return]

    def pushes_elsewhere(account_id: str) -> None:
        topic, name = names(account_id)
        harmed = {
            "name": name,
            "topic": topic,
            "push_config": {"push_endpoint": "http://127.0.0.1:1/"},
        }
        request = {"subscription": harmed, "update_mask": FieldMask(paths=["push_config"])}
        subscriber().update_subscription(request=request, **CALL)

    def no_subscription(account_id: str) -> None:
        subscriber().delete_subscription(request={"subscription": names(account_id)[1]}, **CALL)

    def occupy(account_id: str) -> Callable[[], object]:
        request = {"name": names(account_id)[0], "labels": {"owner": "somebody"}}
        publisher().create_topic(request=request, **CALL)
        return lambda: dict(
            publisher().get_topic(request={"topic": names(account_id)[0]}, **CALL).labels
        )

    harm = {"no delivery": no_subscription, "elsewhere": pushes_elsewhere}
    return Service(signals, lambda account_id: len(arrived.seen[account_id]), harm, occupy)


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


@pytest.mark.parametrize("harm", ["no delivery", "elsewhere"])
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
        lambda: gone.create("x", REGION), lambda: gone.look("x", REGION), lambda: gone.publish("x", b"")
    ):  # fmt: skip
        with pytest.raises(OutageError):
            call()
