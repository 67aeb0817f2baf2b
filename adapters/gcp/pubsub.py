"""Signals on Pub/Sub: a topic per tenant, pushed to the ingress by a subscription of its own.

An existing topic or subscription is compared with the wanted one, never trusted because it exists.
Deleting a topic leaves subscriptions behind that are bound to nothing. Dead letters of all tenants
share one topic. ``tasks.actions.dead_letters`` reads its subscription, so that no refusal loses a
signal (D8).
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from google.api_core import exceptions as answers
from google.protobuf.field_mask_pb2 import FieldMask
from google.pubsub_v1 import PublisherClient, SubscriberClient
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport
from google.pubsub_v1.types import Subscription
from google.pubsub_v1.types import Topic as StoredTopic

from adapters.gcp.calls import PerProcess, Service, bounded, channel, outage
from governor.errors import ConflictError, InputError, OutageError
from governor.paths import topic_name
from ports.lag import Lag
from ports.signals import MAX_MESSAGE_BYTES, DeadLetter, Topic, Waiting

_WHO = Service("Pub/Sub", "signals-unavailable")
ADMIN_S = 10.0
"""Bound of one call of the port that looks, creates or deletes, all its requests together."""

PUBLISH_S, PULL_S = 5.0, 1.0
DEAD_LETTERS = "ggen.dead-letters"
"""Topic and subscription of what could not be delivered; begins with no tenant's prefix."""

MAX_ATTEMPTS = 100
_PULLED_AT_ONCE = 1000
_SOURCE = "CloudPubSubDeadLetterSourceSubscription"
_OURS = re.compile(r"tenants\.([A-Za-z0-9][A-Za-z0-9_-]{0,127})\.signals")
_LABELS = {"managed-by": "ggen-governor"}
_KEPT_S = 7 * 86_400
"""How long Pub/Sub keeps an unacknowledged message; the emulator accepts no longer time."""

_LAST_RETRY_S = 60
"""A message that was refused comes again at least so often: a lag can fall within minutes."""


@dataclass(frozen=True, slots=True)
class Push:
    """Where signals are pushed to, and as whom; no e-mail: without a token (emulator)."""

    url: str
    audience: str = ""
    service_account: str = ""

    def config(self) -> dict[str, Any]:
        """As Pub/Sub stores it."""
        if not self.service_account:
            return {"push_endpoint": self.url}
        token = {"service_account_email": self.service_account, "audience": self.audience}
        return {"push_endpoint": self.url, "oidc_token": token}


class PubsubSignals:
    """See ``ports.signals.Signals`` for what it promises."""

    def __init__(self, project: str, push: Push, lag: Lag, *, emulator_host: str = "") -> None:
        self._project = f"projects/{project}"
        self._push = push
        self._lag = lag
        self._has_dead_letters = False
        self._publisher = PerProcess(
            lambda: PublisherClient(
                transport=PublisherGrpcTransport(
                    channel=channel(PublisherGrpcTransport, emulator_host)
                )
            )
        )
        self._subscriber = PerProcess(
            lambda: SubscriberClient(
                transport=SubscriberGrpcTransport(
                    channel=channel(SubscriberGrpcTransport, emulator_host)
                )
            )
        )

    def look(self, account_id: str, region: str) -> Topic:
        budget = _Budget(ADMIN_S)
        named = {"topic": self._topic_name(account_id)}
        topic = _or_none(budget, self._publisher, "get_topic", named)
        named = {"subscription": self._subscription_name(account_id)}
        subscription = _or_none(budget, self._subscriber, "get_subscription", named)
        if topic is None and subscription is None:
            return Topic.ABSENT
        if any(each and not _holds(each.labels, _LABELS) for each in (topic, subscription)):
            return Topic.FOREIGN
        if topic is None or subscription is None or region not in _regions(topic):
            return Topic.DAMAGED
        stale = _differing(subscription, self._wanted(account_id))
        return Topic.DAMAGED if stale else Topic.READY

    def create(self, account_id: str, region: str) -> None:
        with self._undisturbed() as budget:
            self._create(account_id, region, budget)

    @contextmanager
    def _undisturbed(self) -> Iterator["_Budget"]:
        """Create several things. What others make or remove meanwhile is an outage: try again."""
        try:
            yield _Budget(ADMIN_S)
        except (answers.AlreadyExists, answers.NotFound) as error:
            self._has_dead_letters = False  # they may be what was removed
            raise outage(_WHO, error) from error

    def _create(self, account_id: str, region: str, budget: "_Budget") -> None:
        self._ensure_dead_letters(budget)
        topic = {
            "name": self._topic_name(account_id),
            "labels": _LABELS,
            "message_storage_policy": _stored_in(region),
        }
        self._ensure_region(self._ensure_topic(topic, budget), region, budget)
        self._ensure_subscription(self._wanted(account_id), budget)

    def delete(self, account_id: str) -> None:
        # The subscription first: without its topic it would stay, bound to nothing.
        budget = _Budget(ADMIN_S)
        subscription = {"subscription": self._subscription_name(account_id)}
        _or_none(budget, self._subscriber, "delete_subscription", subscription)
        _or_none(budget, self._publisher, "delete_topic", {"topic": self._topic_name(account_id)})

    def publish(self, account_id: str, message: bytes) -> str:
        if len(message) > MAX_MESSAGE_BYTES:
            raise InputError("message-too-large", f"a message is at most {MAX_MESSAGE_BYTES} bytes")
        request = {"topic": self._topic_name(account_id), "messages": [{"data": message}]}
        done = _or_none(_Budget(PUBLISH_S), self._publisher, "publish", request)
        if done is None:
            raise InputError("no-such-topic", f"there is no topic {topic_name(account_id)}")
        return str(done.message_ids[0])

    def stop_pushing(self, account_id: str) -> None:
        request = {"subscription": self._subscription_name(account_id), "push_config": {}}
        _or_none(_Budget(PUBLISH_S), self._subscriber, "modify_push_config", request)

    @property
    def lets_rest(self) -> bool:
        return True

    def take(self, account_id: str, limit: int) -> list[Waiting]:
        request = {
            "subscription": self._subscription_name(account_id),
            "max_messages": min(limit, _PULLED_AT_ONCE),
        }
        try:
            found = _Budget(PULL_S).ask(self._subscriber, "pull", request)
        except OutageError as error:
            if isinstance(error.__cause__, answers.DeadlineExceeded):
                return []  # Pub/Sub answers when there is something
            raise
        except answers.NotFound:
            return []
        return [
            Waiting(each.message.message_id, each.message.data, each.ack_id)
            for each in found.received_messages
        ]

    def drop(self, account_id: str, messages: Sequence[Waiting]) -> None:
        name = self._subscription_name(account_id)
        request = {"subscription": name, "ack_ids": [each.handle for each in messages]}
        if messages:
            _or_none(_Budget(PUBLISH_S), self._subscriber, "acknowledge", request)

    def backlog(self, account_id: str) -> int:
        return self.backlog_then(account_id)[0]

    def backlog_then(self, account_id: str) -> tuple[int, datetime]:
        return self._lag.undelivered(topic_name(account_id))

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        request = {
            "subscription": f"{self._project}/subscriptions/{DEAD_LETTERS}",
            "max_messages": limit,
        }
        try:
            found = _Budget(PULL_S).ask(self._subscriber, "pull", request)
        except OutageError as error:
            if isinstance(error.__cause__, answers.DeadlineExceeded):
                return []  # Pub/Sub answers when there is something
            raise
        except answers.NotFound:  # before the first tenant, or after a manual removal
            self._has_dead_letters = False
            with self._undisturbed() as budget:
                self._ensure_dead_letters(budget)
            return []
        return [
            DeadLetter(
                account_id=_account_of(received.message.attributes.get(_SOURCE, "")),
                message_id=received.message.message_id,
                data=received.message.data,
                handle=received.ack_id,
            )
            for received in found.received_messages
        ]

    def bury(self, letter: DeadLetter) -> None:
        name = f"{self._project}/subscriptions/{DEAD_LETTERS}"
        request = {"subscription": name, "ack_ids": [letter.handle]}
        _or_none(_Budget(PUBLISH_S), self._subscriber, "acknowledge", request)

    def close(self) -> None:
        for client in (self._publisher.take(), self._subscriber.take()):
            if client:
                client.transport.close()
        self._lag.close()

    def _topic_name(self, account_id: str) -> str:
        return f"{self._project}/topics/{topic_name(account_id)}"

    def _subscription_name(self, account_id: str) -> str:
        return f"{self._project}/subscriptions/{topic_name(account_id)}"

    def _ensure_topic(self, wanted: dict[str, Any], budget: "_Budget") -> Any:
        """The topic as it is stored, of ours for certain."""
        if _is_new(budget, self._publisher, "create_topic", wanted):
            return StoredTopic(wanted)
        there = budget.ask(self._publisher, "get_topic", {"topic": wanted["name"]})
        _refuse_foreign(there, wanted["name"])
        return there

    def _ensure_region(self, there: Any, region: str, budget: "_Budget") -> None:
        """Entitlements of several regions share a topic: its messages may lie in each of them."""
        if region in (regions := _regions(there)):
            return
        changed = {"name": there.name, "message_storage_policy": _stored_in(*regions, region)}
        request = {"topic": changed, "update_mask": FieldMask(paths=["message_storage_policy"])}
        budget.ask(self._publisher, "update_topic", request)

    def _ensure_subscription(self, wanted: dict[str, Any], budget: "_Budget") -> None:
        if _is_new(budget, self._subscriber, "create_subscription", wanted):
            return
        name = {"subscription": wanted["name"]}
        there = budget.ask(self._subscriber, "get_subscription", name)
        _refuse_foreign(there, wanted["name"])
        if not (stale := _differing(there, wanted)):
            return
        if "topic" in stale:  # left behind by a topic that was deleted, or cannot be repaired
            _or_none(budget, self._subscriber, "delete_subscription", name)
            budget.ask(self._subscriber, "create_subscription", wanted)
            return
        request = {"subscription": wanted, "update_mask": FieldMask(paths=stale)}
        budget.ask(self._subscriber, "update_subscription", request)

    def _ensure_dead_letters(self, budget: "_Budget") -> None:
        if self._has_dead_letters:
            return
        topic = {"name": f"{self._project}/topics/{DEAD_LETTERS}", "labels": _LABELS}
        subscription = {
            "name": f"{self._project}/subscriptions/{DEAD_LETTERS}",
            "topic": topic["name"],
            "labels": _LABELS,
            "ack_deadline_seconds": 60,
            "expiration_policy": {},
            "message_retention_duration": {"seconds": _KEPT_S},
        }
        self._ensure_topic(topic, budget)
        self._ensure_subscription(subscription, budget)
        self._has_dead_letters = True

    def _wanted(self, account_id: str) -> dict[str, Any]:
        return {
            "name": self._subscription_name(account_id),
            "topic": self._topic_name(account_id),
            "labels": _LABELS,
            "push_config": self._push.config(),
            "ack_deadline_seconds": 30,  # of a push: how long the ingress may take
            "expiration_policy": {},  # never; the default deletes one idle for 31 days
            "message_retention_duration": {"seconds": _KEPT_S},
            "retry_policy": {
                "minimum_backoff": {"seconds": 10},
                "maximum_backoff": {"seconds": _LAST_RETRY_S},
            },
            "dead_letter_policy": {
                "dead_letter_topic": f"{self._project}/topics/{DEAD_LETTERS}",
                "max_delivery_attempts": MAX_ATTEMPTS,
            },
        }


class _Budget:
    """Seconds that several requests share."""

    def __init__(self, seconds: float) -> None:
        self._give_up_at = time.monotonic() + seconds

    def ask(self, client: PerProcess, method: str, request: dict[str, Any]) -> Any:
        """One request to a client.

        Raises:
            AlreadyExists, NotFound: the answer.
            InputError: Pub/Sub takes it for none.
            OutageError: no answer in the remaining time, or no usable one.
        """
        left_s = max(0.0, self._give_up_at - time.monotonic())
        try:
            return bounded(_asking(client, method, request), left_s, who=_WHO)
        except (answers.AlreadyExists, answers.NotFound):
            raise
        except answers.InvalidArgument as error:
            raise InputError("bad-request", f"Pub/Sub refused it: {error.message}") from error
        except answers.ClientError as error:
            raise outage(_WHO, error) from error


def _asking(client: PerProcess, method: str, request: dict[str, Any]) -> Callable[[float], Any]:
    return lambda left_s: getattr(client.get(), method)(request=request, timeout=left_s, retry=None)


def _or_none(budget: _Budget, client: PerProcess, method: str, request: dict[str, Any]) -> Any:
    """The answer; None where what it is about is not there."""
    try:
        return budget.ask(client, method, request)
    except answers.NotFound:
        return None
    except answers.AlreadyExists as error:  # nothing was to be created
        raise outage(_WHO, error) from error


def _is_new(budget: _Budget, client: PerProcess, method: str, request: dict[str, Any]) -> bool:
    """Create; False where something of that name is there, be it by a request of ours."""
    try:
        budget.ask(client, method, request)
    except answers.AlreadyExists:
        return False
    return True


def _refuse_foreign(there: Any, name: str) -> None:
    if not _holds(there.labels, _LABELS):
        raise ConflictError(
            "topic-misconfigured",
            f"{name} exists and is no topic of ours (it lacks the label managed-by=ggen-governor); "
            "it was left as it is. Remove it if it is not needed",
        )


def _regions(topic: StoredTopic) -> list[str]:
    return list(topic.message_storage_policy.allowed_persistence_regions)


def _stored_in(*regions: str) -> dict[str, Any]:
    return {"allowed_persistence_regions": list(regions)}


def _differing(there: Subscription, wanted: dict[str, Any]) -> list[str]:
    """The fields of a stored subscription that are not as we would make them.

    A detached one, or one with a filter, counts as bound to another topic. The caller deletes
    and recreates it.
    """
    differing = {
        name
        for name, value in wanted.items()
        if name not in there or not _holds(getattr(there, name), value)
    }
    if there.expiration_policy.ttl:
        differing.add("expiration_policy")
    if "no_wrapper" in there.push_config:
        differing.add("push_config")
    if there.filter or there.detached:
        differing.add("topic")
    return sorted(differing)


def _holds(there: Any, wanted: Any) -> bool:
    """Whether ``there`` has every value of ``wanted``; Google adds values of its own."""
    if isinstance(there, timedelta):
        return there == timedelta(**wanted)
    if isinstance(there, Mapping):
        return all(there.get(name) == value for name, value in wanted.items())
    if isinstance(wanted, dict):
        return all(_holds(getattr(there, name), value) for name, value in wanted.items())
    return bool(there == wanted)


def _account_of(subscription: str) -> str:
    """The tenant of a subscription's name; empty where it is none of ours."""
    found = _OURS.fullmatch(subscription.rpartition("/")[2])
    return found[1] if found else ""
