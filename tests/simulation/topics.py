"""Tenants' topics in a world: their messages are pushed to an ingress until it takes them."""

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from governor.errors import GovernorError
from governor.paths import action_id, action_path, topic_name
from ingress.bodies import PushEnvelope
from ingress.routes.signals import _dead_letter, _is_hopeless
from ports import Ports
from ports.documents import Document
from ports.signals import Topic, Waiting
from tasks.actions.admit import Signal, submit
from tests.simulation.customers import Asked, Customers
from tests.simulation.world import World

Ask = Callable[[Callable[[Ports], Any], int], Any]
_FIRST_RETRY_S, _LAST_RETRY_S = 0.5, 8.0


@dataclass(slots=True, eq=False)
class Message:
    """A message of a topic; ``action_id`` is that of the signal in it."""

    account_id: str
    message_id: str
    action_id: str
    data: bytes
    published_s: float
    due_s: float
    tries: int = 0
    is_under_way: bool = False


@dataclass
class SimSignals:
    """``ports.signals.Signals``: topics whose messages ``Pushes`` delivers."""

    world: World
    topics: dict[str, dict[str, Message]] = field(default_factory=dict)
    published: list[Message] = field(default_factory=list)
    lost: list[Message] = field(default_factory=list)
    """What was on a topic that was deleted."""
    read_s: dict[str, float] = field(default_factory=dict)
    """When it was last asked how many wait on a topic."""
    lets_rest = False
    backlogs: Callable[[], int] = lambda: 0
    emptied: Callable[[str], None] = lambda _account_id: None
    """Hears of an empty topic that is looked at before it is deleted."""
    _stopped: set[str] = field(default_factory=set)

    def look(self, account_id: str, _region: str) -> Topic:
        return Topic.READY if account_id in self.topics else Topic.ABSENT

    def create(self, account_id: str, _region: str) -> None:
        self.topics.setdefault(account_id, {})
        self._stopped.discard(account_id)

    def delete(self, account_id: str) -> None:
        self.lost += self.topics.pop(account_id, {}).values()

    def stop_pushing(self, account_id: str) -> None:
        self._stopped.add(account_id)

    def take(self, account_id: str, limit: int) -> list[Waiting]:
        found = list(self.topics.get(account_id, {}).values())[:limit]
        if not found:
            self.emptied(account_id)
        return [Waiting(each.message_id, each.data, each.message_id) for each in found]

    def drop(self, account_id: str, messages: Sequence[Waiting]) -> None:
        for each in messages:
            self.topics.get(account_id, {}).pop(each.handle, None)

    def dead_letters(self, _limit: int) -> list[Any]:
        return []

    def backlog(self, account_id: str) -> int:
        self.read_s[account_id] = self.world.now_s
        return len(self.topics.get(account_id, {})) + self.backlogs()

    def close(self) -> None:
        """Nothing is open."""

    def publish(self, account_id: str, asked: dict[str, Any]) -> None:
        """Append a message, where there is a topic."""
        topic = self.topics.get(account_id)
        if topic is None:
            return
        now_s, signal = self.world.now_s, action_id(account_id, asked["signal_id"])
        name = f"m-{len(self.published)}"
        data = json.dumps(asked).encode()
        topic[name] = Message(account_id, name, signal, data, now_s, now_s)
        self.published.append(topic[name])

    def due(self) -> list[Message]:
        """The messages to be pushed now."""
        pushed = [a for a in self.topics if a not in self._stopped]
        waiting = [each for account in pushed for each in self.topics[account].values()]
        return [m for m in waiting if not m.is_under_way and m.due_s <= self.world.now_s]

    @property
    def waits(self) -> int:
        """How many messages are on topics."""
        return sum(len(topic) for topic in self.topics.values())


class Pushes:
    """What Pub/Sub does, and who publishes."""

    def __init__(self, world: World, signals: SimSignals, ask: Ask) -> None:
        self._world, self._signals, self._ask = world, signals, ask
        self._rng = random.Random(world.seed)

    def publish(self, account_id: str, asked: Callable[[], dict[str, Any]]) -> None:
        """A tenant's publisher: it stops at a time of its own, whatever became of its topic."""
        for number in range(self._rng.randint(5, 40)):
            self._world.sleep(self._rng.choice((0.0, 0.1, 0.5, 1.0)))
            told = {"signal_id": f"t-{number}", "type": "sim.act", "payload": asked()}
            self._signals.publish(account_id, told)

    def push(self) -> None:
        """Deliver due messages, for ever."""
        while True:
            for message in self._signals.due():
                message.is_under_way = True
                self._world.spawn("push", lambda m=message: self._deliver(m))
            self._world.sleep(0.05)

    def _deliver(self, message: Message) -> None:
        is_taken = self._ask(lambda ports: _taken(ports, message), 1) is True
        message.is_under_way, message.tries = False, message.tries + 1
        is_known = self._world.is_frozen or self._rng.random() > self._world.rates.message_lost
        if is_taken and is_known:
            self._signals.topics.get(message.account_id, {}).pop(message.message_id, None)
            return
        rest_s = min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**message.tries)
        message.due_s = self._world.now_s + rest_s


def begin(world: World, signals: SimSignals, customers: Customers) -> None:
    """Have tenants publish, too, and Pub/Sub push; each call of a topic may fail."""
    world.hurts += ("signals",)
    customers.leaves, customers.most_signals = 0.5, 2  # some leave before faults have ended
    pushes, rng = Pushes(world, signals, customers.ask), random.Random(~world.seed)

    def asked() -> dict[str, Any]:
        ends: Any = rng.choice(("well", "well", "recoverably"))
        return Asked(ends=ends, takes_s=rng.choice((0.01, 0.2))).model_dump()

    def publish(account: str) -> None:
        pushes.publish(account, asked)
        customers.unanswered -= 1

    def publish_at_last(account: str) -> None:
        if rng.random() < 0.3:
            told = {"signal_id": f"last-{world.steps}", "type": "sim.act", "payload": asked()}
            signals.publish(account, told)

    signals.emptied = publish_at_last
    if rng.random() < 0.5:
        world.rates = replace(world.rates, cursed="delete")
    world.spawn("pubsub", pushes.push)
    for account in ("acme", "beta"):
        customers.unanswered += 1
        world.spawn("publisher", partial(publish, account), rng.uniform(0, 4))


def _taken(ports: Ports, message: Message) -> bool:
    """What the ingress does with a push; whether it acknowledges it. Raises as ``submit``."""
    envelope = PushEnvelope.model_validate(
        {
            "message": {
                "data": base64.b64encode(message.data).decode(),
                "messageId": message.message_id,
            },
            "subscription": f"projects/sim/subscriptions/{topic_name(message.account_id)}",
        }
    )
    told = envelope.signal()
    asked = Signal(message.account_id, told.signal_id, told.type, told.sku_id, told.payload)
    try:
        submit(ports, asked)
    except GovernorError as error:
        if not _is_hopeless(error):
            raise
        _dead_letter(ports, envelope, error)
    return True


def faults_of(
    signals: SimSignals, documents: dict[str, Document], ends: dict[str, dict[str, Any]]
) -> str:
    """A fault of messages once all is quiet: each was acted on, refused, or stated.

    Args:
        signals: the topics.
        documents: all there are.
        ends: account -> its receipt of ``decommission_complete``.
    """
    refused: dict[str, list[str]] = {}
    for document in documents.values():
        if "/refused/" in document.path:
            refused.setdefault(document.path.split("/")[1], []).extend(document.data["names"])
    for account_id, told in ends.items():
        names = refused.get(account_id, [])
        if len(set(names)) != len(names):
            return f"{account_id}: a message is refused twice"
        if told["signals_refused"] != len(names):
            return f"{account_id}: {told['signals_refused']} told as refused, {len(names)} are"
        fault = _undelivered(signals, account_id, told.get("undelivered_unknown"))
        if fault:
            return fault
    lost = {each.message_id for each in signals.lost}
    for each in signals.published:
        is_acted_on = action_path(each.account_id, each.action_id) in documents
        is_refused = each.message_id in refused.get(each.account_id, [])
        if is_acted_on and is_refused:
            return f"{each.message_id} of {each.account_id} is acted on, and told as refused"
        if not (is_acted_on or is_refused or each.message_id in lost):
            return f"{each.message_id} of {each.account_id} is gone, and nothing tells of it"
    return ""


def _undelivered(signals: SimSignals, account_id: str, told: int | None) -> str:
    """A number that is told is that of the messages that were there when it was read."""
    read_s = signals.read_s.get(account_id, 0.0)
    mine = [each for each in signals.lost if each.account_id == account_id]
    count = sum(each.published_s <= read_s for each in mine)
    if told is None or told == count:
        return ""
    return f"{account_id}: {told} undelivered are told, {count} were deleted"
