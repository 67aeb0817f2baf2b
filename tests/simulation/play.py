"""One world: customers, beat, faults, until all is quiet; and what the oracle says of it."""

import contextlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

os.environ.setdefault("GGEN_STATE_DIR", tempfile.mkdtemp(prefix="simulation-"))
os.environ.setdefault("GGEN_BROKER_URL", "memory://")

import tenacity
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import tasks.celery
from adapters import wiring
from adapters.valkey.slots import governor_key
from ggen_governor.handlers import ActionContext, action
from governor.errors import (
    ActionDeadline,
    RecoverableError,
    UnrecoverableError,
)
from governor.fsm import RUN_OPEN
from governor.quota import Verdict
from governor.records import SYSTEM_ACCOUNT
from ledger.receipt import Signer
from ports import Ports, Times
from tasks import publish, ticks  # noqa: F401  # ticks registers its tasks
from tasks.actions import execute, recover
from tasks.actions.deadline import Ended, Ending
from tasks.governors import policies
from tasks.health.rebuild import rebuild
from tasks.receipts import fence
from tasks.runs import journal
from tests.simulation import stores, topics
from tests.simulation.broker import CHILDREN, Broker
from tests.simulation.bugs import BUGS
from tests.simulation.customers import Asked, Customers
from tests.simulation.operators import Operator, faults_of
from tests.simulation.oracle import ENDED, Oracle
from tests.simulation.stores import Gated
from tests.simulation.topics import SimSignals
from tests.simulation.world import HOSTS, Killed, Process, SimClock, SimProcesses, World

# A small limit, so that it binds.
LIMIT, FREEZE_S, END_S, MAX_STEPS = 2, 16.0, 500.0, 60_000
SIGNER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
POLICY = {
    "sku_id": "sim-sku",
    "plan_type": "starter",
    "policy_version": "1.0.0",
    "quota": {"monthly_actions": 1000, "concurrent_actions": LIMIT},
    "permissions": ["sim.act"],
    "signals": {"sim.act": "sim.act"},
    "actions": {
        "sim.act": {
            "handler": "sim.act",
            "timeout_ms": 500,
            "rollback_timeout_ms": 100,
            "queue_timeout_ms": 15000,
            "recoverable": True,
        }
    },
}
_here: "Play | None" = None


@action("sim.act", payload=Asked)
def act(context: ActionContext, payload: Asked) -> None:
    """Starts, takes its time, works, and ends as told."""
    play = _playing()
    play.effect(context, "start")
    if payload.ends == "sticks":
        play.world.current().until_s = None  # C code, where no signal is looked at
        play.world.sleep(60)
    play.world.sleep(payload.takes_s)
    play.effect(context, "work")
    if payload.ends == "recoverably":
        raise RecoverableError("SIM", "as told")
    if payload.ends == "irrecoverably":
        raise UnrecoverableError("SIM", "as told")


@act.rollback
def _undo(context: ActionContext, payload: Asked) -> None:
    play = _playing()
    play.effect(context, "undo")
    play.world.sleep(0.005)
    tries = sum(kind == "undo" for _, _, kind in play.oracle.effects[context.action_id])
    if tries <= payload.undo_fails:
        raise RecoverableError("SIM_UNDO", "as told")
    play.effect(context, "undone")


def _playing() -> "Play":
    assert _here is not None
    return _here


@dataclass
class Play:
    """A world with everything in it."""

    seed: int
    bug: str = ""
    """The bug that is put back, by its name."""
    world: World = field(init=False)
    oracle: Oracle = field(init=False)
    customers: Customers = field(init=False)

    def __post_init__(self) -> None:
        self.world, self.oracle = World(self.seed), Oracle(LIMIT)
        self.documents = stores.SimDocuments(self.world)
        self.oracle.tell = self.world.tell
        self.oracle.spooled = lambda: self.objects.names("spool/")
        self.objects, self.signals = stores.SimObjects(), SimSignals(self.world)
        self.secrets, self.alerts = stores.SimSecrets(), stores.SimAlerts()
        self.documents.seen = lambda writes: self.oracle.seen(
            self.documents.held, writes, self.world.now()
        )
        self.customers = Customers(self.world, self.oracle, self.documents, self.ports_of)

    # -- ports

    def ports_of(self, process: Process) -> Ports:
        """This process's ports: every call takes time, and may fail."""
        if process.ports is None:
            process.ports = self._ports(lambda inner, store: Gated(self.world, inner, store))
        return process.ports  # type: ignore[no-any-return]

    def _ports(self, gate: Callable[[Any, str], Any]) -> Ports:
        objects = gate(self.objects, "objects")
        return Ports(
            documents=gate(self.documents, "documents"),
            objects=objects,
            spool=objects,
            archives=objects,
            signals=gate(self.signals, "signals"),
            memory=gate(self.memory, "memory"),
            secrets=self.secrets,  # type: ignore[arg-type]
            keys=stores.SimKeys(SIGNER),  # type: ignore[arg-type]
            alerts=self.alerts,  # type: ignore[arg-type]
            clock=SimClock(self.world),
            processes=SimProcesses(self.world),
            pushers=None,  # type: ignore[arg-type]
            calls=None,  # type: ignore[arg-type]
            times=Times(health_interval_s=2, probe_interval_s=1, lease_s=6),
        )

    def effect(self, context: ActionContext, what: str) -> None:
        """A handler does something that can be seen from outside."""
        pid, action_id = self.world.current().pid, context.action_id
        if what == "undo":
            kept = [c for name, c in self.objects.held.items() if action_id in name]
            is_undone = any(b"action_rolled_back" in content for content in kept)
            self.oracle.check(not is_undone, f"{action_id} is undone again; its end is spooled")
        self.oracle.effect(self.world.now_s, pid, context.action_id, what)

    # -- playing

    def run(self) -> str:
        """Play it; what was broken first, or nothing."""
        global _here
        with contextlib.ExitStack() as patches:
            for each in stores.patched(self.world):
                patches.enter_context(mock.patch.object(*each))
            self.memory = stores.SimMemory(self.world)
            self.broker = Broker(self.world, self.ports_of)
            for each in (*self._patched(), *(BUGS[self.bug].patches() if self.bug else ())):
                patches.enter_context(mock.patch.object(*each))
            _here = self
            policies.forget_loaded()
            try:
                return self._play()
            finally:
                self.world.end()
                _here = None

    def _patched(self) -> Iterator[tuple[Any, str, Any]]:
        world = self.world
        yield wiring, "ports", lambda: self.ports_of(world.current())
        yield publish, "chain", self.broker.chain
        yield tasks.celery.app, "send_task", self.broker.send_task
        yield execute, "run_within", self._run_within
        yield recover, "run_within", self._run_within
        yield fence, "os", _Death(world)
        yield journal, "_JITTER", random.Random(self.seed)
        yield tenacity.nap, "time", _Nap(world)
        yield tenacity, "time", _Nap(world)
        yield tenacity.wait, "random", random.Random(self.seed)

    def _run_within(self, seconds: float, call: Callable[[], object]) -> Ended:
        """``deadline.run_within`` on the world's time."""
        world, process = self.world, self.world.current()
        began_s, process.until_s = world.now_s, world.now_s + seconds
        try:
            value = call()
        except ActionDeadline:
            return Ended(Ending.TIMED_OUT, world.now_s - began_s, fired_late_s=0.0)
        except Exception as error:
            return Ended(Ending.RAISED, world.now_s - began_s, error=error)
        finally:
            process.until_s = None
        return Ended(Ending.RETURNED, world.now_s - began_s, value=value)

    def _play(self) -> str:
        world = self.world
        world.spawn("setup", self._set_up)
        while world.step():
            if self.oracle.broken:
                return self.oracle.broken
            if world.now_s > END_S or world.steps > MAX_STEPS:
                return f"not quiet after {world.steps} steps: {self._loud()}"
            if self.is_quiet:
                break
        ports = self._ports(lambda inner, _store: inner)
        self.oracle.finally_(ports, self.customers.accepted)
        if self.is_manned:
            self._judge_governors(ports)
        if self.has_topics:
            fault = topics.faults_of(self.signals, self.documents.held, self.oracle.decommissioned)
            self.oracle.check(not fault, fault)
        return self.oracle.broken

    is_quiet = False

    def _set_up(self) -> None:
        frozen, self.world.is_frozen = self.world.is_frozen, True
        ports = self.ports_of(self.world.current())
        policies.register(ports, json.dumps(POLICY).encode())
        rebuild(ports, ports.times.lease_s)
        self.world.is_frozen = frozen
        self.broker.start(has_second=self.is_manned)
        self.world.spawn("beat", self._beat)
        rng = self.world.rng
        self.customers.come_together = self.seed % 16 == 3
        for account in ("acme", "beta")[: rng.choice((1, 1, 1, 2))]:
            self.customers.unanswered += 1
            self.world.spawn("customer", lambda account=account: self.customers.live(account))
        if self.is_manned:
            self._man()
        if self.has_topics:
            topics.begin(self.world, self.signals, self.customers)
        for _ in range(self.world.rates.outages):
            store = rng.choice(("documents", "documents", "documents", "memory", "objects"))
            at_s, lasts_s = rng.uniform(0.3, 4), rng.choice((0.5, 2, 8, 9))
            until_s = min(self.freeze_s, at_s + lasts_s)
            self.world.at(at_s, lambda s=store, u=until_s: self._fail(s, u))
        for _ in range(self.world.rates.kills):
            self.world.at(rng.uniform(0.3, 10), self._kill_one)
        for _ in range(self.world.rates.wipes):
            self.world.at(rng.uniform(0.5, 9), self._wipe)
        self.world.at(self.freeze_s, self._freeze)

    @property
    def has_topics(self) -> bool:
        """Whether this world's tenants publish, too: one in sixteen, for they take long."""
        return self.seed % 16 == 1

    @property
    def freeze_s(self) -> float:
        """When faults end; where tenants publish, only after most cancellations."""
        return 3 * FREEZE_S if self.has_topics else FREEZE_S

    # -- a second host, and an operator

    @property
    def is_manned(self) -> bool:
        """Whether this world has a second host and an operator: one in four."""
        return self.seed % 4 == 2

    def _man(self) -> None:
        world, rng = self.world, random.Random(-self.seed)
        operator = Operator(world, self.customers.ask, POLICY)

        def work() -> None:
            operator.work(self._served, lambda what: self.oracle.check(False, what))
            self.customers.unanswered -= 1

        self.customers.unanswered += 1
        world.spawn("operator", work, rng.uniform(0.5, 3))
        self.signals.backlogs = lambda: rng.choice((0, 0, 12, 40))
        for _ in range(rng.choice((0, 1, 2))):
            lasts_s = rng.choice((0.5, 3.0, 9.0))
            fate = rng.choice((self._cut_off, self._lose_second))
            world.at(rng.uniform(0.3, 8), lambda f=fate, s=lasts_s: f(s))

    def _cut_off(self, for_s: float) -> None:
        self.world.tell(f"the second host is cut off for {for_s} s")
        self.world.cut[HOSTS[1]] = min(self.freeze_s, self.world.now_s + for_s)

    def _lose_second(self, for_s: float) -> None:
        self.broker.lose_host(HOSTS[1], for_s)

    def _served(self) -> list[str]:
        return sorted(self.oracle.active - self.oracle.archived)

    def _judge_governors(self, ports: Ports) -> None:
        for account in self._served():
            known = self.memory.redis.hgetall(governor_key(account))
            fault = faults_of(ports, known, account)
            self.oracle.check(not fault, fault)

    # -- faults

    def _fail(self, store: str, until_s: float) -> None:
        self.world.tell(f"outage of {store} until {until_s:.1f}")
        self.world.down[store] = until_s

    def _kill_one(self) -> None:
        workers = [p for p in self.world.processes.values() if p.is_alive and p.role in CHILDREN]
        busy = [process for process in workers if process.task]
        hurt = self.world.hurt
        is_chosen = hurt is not None and hurt.is_alive and hurt.role in CHILDREN
        chosen = hurt if is_chosen and self.world.rng.random() < 0.7 else None
        self.world.kill(chosen or self.world.rng.choice(busy or workers), "at random")

    def _wipe(self) -> None:
        self.world.tell("Memory is wiped")
        self.oracle.is_wiped = True
        self.memory.wipe()

    def _freeze(self) -> None:
        self.world.tell("no more faults")
        self.world.is_frozen = True
        self.world.down.clear()
        self.world.cut.clear()

    # -- beat

    def _beat(self) -> None:
        due = dict.fromkeys(("reap", "check", "probe", "seal", "watch", "look"), 0.0)
        due["tally"] = 5.0
        while True:
            now_s = self.world.now_s
            for name, send in self._ticks().items():
                if due[name] <= now_s:
                    due[name] = now_s + send()
            self.is_quiet = self.world.is_frozen and not self._loud()
            self.world.sleep(0.8)

    def _ticks(self) -> dict[str, Callable[[], float]]:
        send = self.broker.send_task

        def reap() -> float:
            send("reap.sweep", queue="health")
            return 2.0

        def check() -> float:
            send("degrade_to_safe_mode.check", kwargs={"by_beat": True}, queue="health")
            return 1.9

        def probe() -> float:
            if self._standing() is not Verdict.ADMITTED:
                send("degrade_to_safe_mode.probe", queue="health")
            return 0.95

        def seals() -> float:
            if self._marked():
                send("seal.sweep")
            return 0.8

        def tally() -> float:
            send("tally.receipt")
            return 20.0

        def watch() -> float:
            send("upgrade_policy.watch", queue="health")
            return 2.0

        def look() -> float:
            send("scale_governor.look", queue="health")
            return 2.0

        told = {"reap": reap, "check": check, "probe": probe, "seal": seals, "tally": tally}
        return told | ({"watch": watch, "look": look} if self.is_manned else {})

    def _standing(self) -> Verdict:
        return self.memory.standing(SYSTEM_ACCOUNT)

    def _marked(self) -> int:
        return self.memory.unsealed_count()

    # -- quiet

    def _loud(self) -> str:
        """What still goes on; empty where nothing does."""
        held = self.documents.held.values()
        reasons = {
            "a customer is unanswered": self.customers.unanswered,
            "no lease": self._standing() is not Verdict.ADMITTED,
            "an action goes on": any(
                "/actions/" in d.path and d.data["state"] not in ENDED for d in held
            ),
            "a run goes on": any(
                d.path.startswith("runs/") and d.data["state"] in RUN_OPEN for d in held
            ),
            "a turn is held": any(d.path.startswith("turns/") for d in held),
            "a slot is held": self.memory.held_count(),
            "a commit is spooled": any(name.startswith("spool/") for name in self.objects.held),
            "a ledger is unsealed": self._marked(),
            "a message waits": self.signals.waits,
        }
        return ", ".join(what for what, holds in reasons.items() if holds)


class _Death:
    """``os`` of the fence: to kill oneself is to be killed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def getpid(self) -> int:
        return self._world.current().pid

    def kill(self, _pid: int, _signal: int) -> None:
        self._world.kill(self._world.current(), "by its own hand")
        raise Killed


class _Nap:
    """``time`` of tenacity."""

    def __init__(self, world: World) -> None:
        self._world = world

    def sleep(self, seconds: float) -> None:
        self._world.sleep(seconds)

    def monotonic(self) -> float:
        return self._world.now_s
