"""Customers of a world: they subscribe, send signals, repeat them, cancel, and note the answers."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel

from governor.errors import DeniedError, GovernorError, OutageError
from governor.fsm import RUN_OPEN, RunState
from governor.paths import action_id
from governor.runs import Run
from governor.tenancy import MarketplaceEvent
from ports import Ports
from tasks import marketplace
from tasks.actions import admit
from tests.simulation.oracle import Oracle
from tests.simulation.stores import SimDocuments
from tests.simulation.world import Process, World


class Asked(BaseModel):
    """How a handler of this world goes."""

    ends: Literal["well", "recoverably", "irrecoverably", "sticks"]
    takes_s: float
    undo_fails: int = 0


class Customers:
    """Who stands before the doors; ``accepted`` is what they were answered for."""

    def __init__(
        self,
        world: World,
        oracle: Oracle,
        documents: SimDocuments,
        ports_of: Callable[[Process], Ports],
    ) -> None:
        self.world, self.oracle, self.documents = world, oracle, documents
        self.ports_of = ports_of
        self.accepted = dict[str, tuple[str, str]]()
        self.unanswered = 0
        self.most_signals = 5
        self.come_together = False
        """Whether several signals come at the same time."""
        self.leaves = 0.12
        """How likely a customer cancels: an archive takes half a second of processor time."""

    def live(self, account: str) -> None:
        """One customer's whole life."""
        rng, world = self.world.rng, self.world
        apart = [self._apart(account, f"early-{n}", rng.uniform(0, 0.08)) for n in range(5)]
        self._deliver(account, "entitlement.created")
        left = rng.choice((1, 2, 2))
        senders = [
            world.spawn("customer", lambda n=n: self._sender(account, f"{n}-")) for n in range(left)
        ]
        while any(sender.is_alive for sender in senders):
            world.sleep(0.05)
        if rng.random() < self.leaves:
            world.sleep(rng.choice((0.0, 0.0, 1.0)))
            apart += [self._apart(account, f"late-{n}", rng.uniform(0, 4)) for n in range(4)]
            self._deliver(account, "entitlement.cancelled")
        while any(each.is_alive for each in apart):
            world.sleep(0.05)
        self.unanswered -= 1

    def _apart(self, account: str, signal_id: str, after_s: float) -> Process:
        """A signal beside a subscription or a cancellation: it may be refused, and comes once."""
        asked = Asked(ends="well", takes_s=0.01)
        signal = admit.Signal(account, signal_id, "sim.act", None, asked.model_dump())

        def send() -> None:
            told = self.ask(lambda ports: admit.submit(ports, signal), 1)
            if isinstance(told, str):
                self.accepted[told] = (account, asked.ends)

        return self.world.spawn("customer", send, after_s)

    def _sender(self, account: str, prefix: str) -> None:
        """Signals one after the other, some of them repeated later."""
        rng, sent = self.world.rng, list[tuple[str, Asked]]()
        for number in range(rng.randint(2, self.most_signals)):
            self.world.sleep(rng.choice((0.0, 0.0, 0.2, 1.0, 2.0)))
            asked = Asked(
                ends=rng.choice(("well", "well", "well", "recoverably", "irrecoverably", "sticks")),
                takes_s=rng.choice((0.01, 0.2, 0.4, 0.7)),
                undo_fails=rng.choice((0, 0, 0, 1)),
            )
            sent.append((f"{prefix}{number}", asked))
            if not self.come_together:
                self._signals(account, sent[-1:])
                if rng.random() < 0.3:
                    self._signals(account, [rng.choice(sent)])
            elif rng.random() < 0.5:  # some of these are repeated, too
                self._signals(account, rng.choices(sent, k=2) + sent[-3:])

    def ask(self, do: Callable[[Ports], Any], times: int = 10_000) -> Any:
        """Have an ingress do something, again and again until it answers; None: it did not."""
        told: list[Any] = []

        def work() -> None:
            try:
                told.append(do(self.ports_of(self.world.current())))
            except OutageError as error:
                self.world.tell(f"ingress: {error.code}")
            except GovernorError as error:
                told.append(error)

        for _ in range(times):
            process = self.world.spawn("ingress", work)
            while process.is_alive:
                self.world.sleep(0.02)
            if told:
                return told[0]
            self.world.sleep(0.5)
        return None

    def _deliver(self, account: str, event_type: str) -> None:
        event = MarketplaceEvent.model_validate(
            {
                "event_type": event_type,
                "event_id": f"{event_type}-{account}",
                "account_id": account,
                "sku_id": "sim-sku",
                "entitlement_id": "sim-sku",
                "plan_type": "starter",
                "region": "us-central1",
                "event_time": "2026-11-27T12:00:00.000000Z"
                if event_type == "entitlement.created"
                else "2026-11-27T12:00:01.000000Z",
                "effective_at": "2026-11-27T12:00:00.000000Z",
            }
        )
        while True:
            run = self.ask(lambda ports: marketplace.begin(ports, event, b"{}"))
            if isinstance(run, GovernorError):
                self.oracle.check(False, f"{event_type} of {account}: {run}")
                return
            ended = self._ended(run)
            if ended.state is RunState.COMPLETE:
                return
            self.world.tell(f"{event_type} of {account} ended {ended.state}: {ended.error_code}")
            self.oracle.check(
                ended.retryable, f"{event_type} of {account} was refused, and is not to be repeated"
            )
            self.world.sleep(2.0)

    def _ended(self, run: Run) -> Run:
        while True:
            found = self.documents.held.get(f"runs/{run.run_id}")
            if found is not None and found.data["state"] not in RUN_OPEN:
                return Run.stored(found.data)
            self.world.sleep(0.25)

    def _signals(self, account: str, sent: Sequence[tuple[str, Asked]]) -> None:
        """Signals that come at the same time, until each is accepted."""
        waiting = list(sent)
        while waiting:
            signals = [
                admit.Signal(account, name, "sim.act", None, asked.model_dump())
                for name, asked in waiting
            ]
            known = self._known(account, waiting)
            answers = self.ask(partial(admit.submit_all, signals=signals))
            if len(waiting) == 1:  # no other was judged since
                known = self._known(account, waiting)
            refused, pause_s = list[tuple[str, Asked]](), 0.5
            for (signal_id, asked), told in zip(waiting, answers, strict=True):
                if isinstance(told, str):
                    self.accepted[told] = (account, asked.ends)
                elif self._may_come_again(account, signal_id, told, signal_id in known):
                    refused.append((signal_id, asked))
                    pause_s = 1.0 if isinstance(told, DeniedError) else pause_s
            waiting = refused
            if waiting:
                self.world.sleep(pause_s)

    def _known(self, account: str, sent: Sequence[tuple[str, Asked]]) -> set[str]:
        """Those that are stored by now."""
        path, held = f"tenants/{account}/actions", self.documents.held
        return {name for name, _ in sent if f"{path}/{action_id(account, name)}" in held}

    def _may_come_again(
        self, account: str, signal_id: str, told: GovernorError, is_known: bool
    ) -> bool:
        """Whether a signal was refused for now; never one that was known when it was judged."""
        if isinstance(told, OutageError):
            self.world.tell(f"ingress: {told.code}")
            return True
        self.oracle.check(not is_known, f"signal {signal_id} of {account} refused again")
        is_for_now = isinstance(told, DeniedError) and told.code == "concurrency-exceeded"
        self.oracle.check(is_for_now, f"signal {signal_id} of {account}: {told!r}")
        return is_for_now
