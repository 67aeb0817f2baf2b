"""Outages under load, one after another, all books compared: ``make soak``.

Each trial has a tenant of its own, begins at a random moment between two checks, and ends with what
clients saw, what handlers did, what receipts say, and whether the ledger holds.
"""

import json
import random
import re
import sqlite3
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from adapters.local.waiting import until
from adapters.wiring import open_ports
from bench.load import Load
from bench.measure import machine
from bench.stack import Driver, stack
from config.settings import Settings
from governor.errors import OutageError
from governor.health import Drill, Fault, Outage, Scope
from governor.quota import Verdict
from governor.times import instant
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import every
from tasks.ledgers.audit import audit_ledger

LOCKED = "locked"
"""Another process holds the file's write lock: a fault of the file itself."""

TENTH = {
    "health_interval_s": 1.0,
    "probe_interval_s": 0.2,
    "lease_s": 3.3,
    "store_timeout_s": 0.1,
    "tally_interval_s": 1.0,
}
"""All intervals divided by ten."""

_BY_ADMISSION = (Verdict.DEGRADED, Verdict.NO_LEASE)
"""Refusals without a look at the store; each is of an outage."""

_ENDS = ("action_complete", "action_failed", "action_timeout")
_LOOK_EVERY_S = 0.005
_NOTE = re.compile(r"\{[^{}]*\}")
"""One note of a handler. A full disk may have cut one off: its handler failed, too."""

_NEVER_MS = 600_000
"""Longer than any action waits or runs: who says so goes by a clock that was set."""


@dataclass
class Trial:
    """One outage; ``faults`` are sentences about what did not hold."""

    fault: str
    account_id: str
    detected_s: float = 0.0
    recovered_s: float = 0.0
    down_s: float = 0.0
    offered: int = 0
    accepted: int = 0
    refused: int = 0
    hiccups: int = 0
    faults: list[str] = field(default_factory=list)

    def expect(self, holds: object, otherwise: str) -> None:
        """Note what does not hold."""
        if not holds:
            self.faults.append(otherwise)


class Soak:
    """Trials on one running stack.

    Args:
        driver: the stack.
        per_s: signals a second.
        read_within_s: how long a store may take when books are compared; else the stack's bound.
    """

    def __init__(
        self, driver: Driver, per_s: float = 20.0, read_within_s: float | None = None
    ) -> None:
        self._driver, self._settings, self._per_s = driver, driver.settings, per_s
        patience = {"store_timeout_s": read_within_s} if read_within_s else {}
        self.ports: Ports = open_ports(driver.settings.model_copy(update=patience))
        self.loads: list[Load] = []

    def trial(self, fault: str, number: int) -> Trial:
        """An outage from its beginning to the comparison of all books."""
        done = Trial(fault, f"soak-{number}-{fault}")
        _until(self._is_well)
        self._driver.subscribe(done.account_id)
        load = Load(self._settings, done.account_id, self._per_s)
        self.loads.append(load)
        with load:
            time.sleep((0.2 + random.random()) * self._settings.health_interval_s)  # noqa: S311
            with self.failing(fault):
                began_s, began = time.monotonic(), time.time()  # noqa: TID251  # as clients see it
                _until(lambda: self._health().is_degraded)
                done.detected_s = round(time.monotonic() - began_s, 3)
                time.sleep(random.random() * 2 * self._settings.health_interval_s)  # noqa: S311
            ended_s = time.monotonic()
            _until(lambda: self.ports.lease.standing("_system") is Verdict.ADMITTED)
            done.recovered_s = round(time.monotonic() - ended_s, 3)
            time.sleep(2 * self._settings.probe_interval_s)
        _until(lambda: not self.ports.modes.owed(Scope.ALL))
        self._check(done, load, began)
        return done

    def quiet(self, minutes: float, account_id: str = "soak-quiet") -> dict[str, Any]:
        """Send as many signals as the stack takes, without a fault: it must record no outage."""
        _until(self._is_well)
        self._driver.subscribe(account_id)
        before = len(list(every(self.ports.documents, "outages")))
        failed = 0
        with Load(self._settings, account_id, per_s=0, clients=16) as load:
            give_up_at = time.monotonic() + minutes * 60
            while time.monotonic() < give_up_at:
                failed = max(failed, self._health().failures)
                time.sleep(0.05)
        outages = len(list(every(self.ports.documents, "outages"))) - before
        return {
            "minutes": minutes,
            "statuses": dict(load.statuses()),
            "outages": outages,
            "most_failed_checks_in_a_row": failed,
            "met": outages == 0,
        }

    def refusals_are_receipted(self) -> list[str]:
        """The loads whose tenant's ledger lacks a refusal that a client saw."""
        faults = []
        for load in self.loads:
            seen = sum(n for status, n in load.statuses().items() if status != 202)
            try:
                _until(
                    lambda load=load, seen=seen: self._receipted(load) == seen,  # type: ignore[misc]
                    self._settings.tally_interval_s + 20,
                )
            except TimeoutError:
                faults.append(
                    f"{load.account_id}: {seen} refused, {self._receipted(load)} receipted"
                )
        return faults

    def _receipted(self, load: Load) -> int:
        return sum(r["total"] for r in self._receipts(load.account_id, "signals_refused"))

    def _check(self, done: Trial, load: Load, began: float) -> None:
        seen = load.statuses()
        done.offered, done.accepted, done.refused = seen.total(), seen[202], seen[503]
        outage = self._last_outage()
        done.down_s = round(
            (instant(str(outage.recovered_at)) - instant(outage.began_at)).total_seconds(), 2
        )
        since, until = (
            instant(str(at)).timestamp() for at in (outage.degraded_at, outage.recovered_at)
        )
        leaked = [
            a
            for a in load.answers
            if since <= a.asked_at and a.answered_at <= until and a.status != 503
        ]
        done.expect(not leaked, f"{len(leaked)} were not refused while degraded")
        told = [
            r["actions_refused"]
            for r in self._receipts("_system", "degraded_mode_cleared")
            if r["downtime_seconds"] > 0
        ][-1]
        # The store may fail a signal or two apart from the outage, in whatever words: before it, or
        # in a process that learns a moment later than the checker that it is over. A refusal is
        # counted before it is answered, so one asked before the end may belong to either side.
        failed = [a for a in load.answers if a.status == 503 and a.code not in _BY_ADMISSION]
        before = [a for a in failed if a.answered_at < began]
        after = [a for a in failed if a.answered_at > until]
        done.hiccups = len(before) + len(after)
        fewest = done.refused - done.hiccups
        unsure = len(before) + sum(a.asked_at <= until for a in after)
        done.expect(
            fewest <= told <= fewest + unsure,
            f"{done.refused} refused, actions_refused {told}; before {before}, after {after}",
        )
        done.expect(set(seen) <= {202, 429, 503}, f"other answers: {dict(seen)}")
        self.check_ends(done, load.settled())
        _until(lambda: audit_ledger(self.ports, done.account_id).unsealed == 0)
        report = audit_ledger(self.ports, done.account_id)
        done.expect(report.is_valid, f"the ledger is broken: {report.findings[:3]}")

    def check_ends(self, done: Trial, accepted: dict[str, str]) -> None:
        """Every accepted action has ended, once, as its receipts and its handler's notes say."""
        ids = set(accepted.values())
        done.expect(len(ids) == len(accepted), "two signals share an action")
        found: list[dict[str, Any]] = []

        def all_have_ended() -> bool:
            found[:] = self._actions(done.account_id)
            return all(action["ended_at"] for action in found)

        _until(all_have_ended)
        done.expect(
            {a["action_id"] for a in found} == ids, "actions that no client offered, or lost ones"
        )
        receipts = self._receipts(done.account_id)
        ends = Counter(r["action_id"] for r in receipts if r["operation"] in _ENDS)
        twice = [action_id for action_id in ids if ends[action_id] != 1]
        done.expect(not twice, f"{len(twice)} actions without exactly one end")
        undone = {r["action_id"] for r in receipts if r["operation"] == "action_rolled_back"}
        done.expect(
            undone == {a["action_id"] for a in found if a["state"] == "rolled_back"},
            "rolled back without a receipt, or the other way round",
        )
        notes: Counter[tuple[str, str]] = Counter()
        for text in _NOTE.findall(self._settings.demo_file.read_text()):
            note = json.loads(text)
            notes[note["action_id"], note["event"]] += 1
        done.expect(all(notes[i, "start"] <= 1 for i in ids), "a handler was started twice")
        half = [
            a["action_id"]
            for a in found
            if (a["state"] == "complete" and not notes[a["action_id"], "end"])
            or (
                a["state"] == "rolled_back"
                and notes[a["action_id"], "start"]
                and not notes[a["action_id"], "rolled_back"]
            )
        ]
        done.expect(not half, f"{len(half)} actions were half done: {half[:3]}")
        spans = [a[name] or 0 for a in found for name in ("queue_ms", "run_ms")]
        longest_ms = max(spans, default=0)
        done.expect(longest_ms < _NEVER_MS, f"one is told to have taken {longest_ms} ms")

    def _actions(self, account_id: str) -> list[dict[str, Any]]:
        found = every(self.ports.documents, f"tenants/{account_id}/actions")
        return [document.data for document in found]

    def _receipts(self, account_id: str, operation: str = "") -> list[dict[str, Any]]:
        found = every(self.ports.documents, f"tenants/{account_id}/receipts")
        fields = [SignedReceipt.stored(document.data).fields() for document in found]
        fields.sort(key=lambda f: str(f["timestamp"]))
        return [f for f in fields if operation in ("", f["operation"])]

    def _last_outage(self) -> Outage:
        found = [Outage.stored(d.data) for d in every(self.ports.documents, "outages")]
        return max((o for o in found if o.degraded_at), key=lambda o: str(o.degraded_at))

    def _health(self) -> Any:
        return self.ports.modes.health(Scope.ALL)

    def _is_well(self) -> bool:
        known = self._health()
        standing = self.ports.lease.standing("_system")
        return (
            standing is Verdict.ADMITTED
            and not known.failures
            and not self.ports.modes.owed(Scope.ALL)
        )

    def _begun(self, drill: Drill) -> bool:
        with suppress(OutageError):
            self.ports.modes.begin_drill(drill, 600)
            return True
        return False

    def _ended(self, drill: Drill) -> bool:
        with suppress(OutageError):
            self.ports.modes.end_drill(drill.drill_id)
            return True
        return False

    @contextmanager
    def failing(self, fault: str) -> Iterator[None]:
        if fault == LOCKED:
            holder = sqlite3.connect(
                self._settings.state_dir / "documents.db", isolation_level=None, timeout=30
            )
            holder.execute("BEGIN IMMEDIATE")
            try:
                yield
            finally:
                holder.execute("ROLLBACK")
                holder.close()
            return
        drill = Drill(drill_id=f"soak-{time.monotonic()}", fault=Fault(fault))
        _until(lambda: self._begun(drill))  # Memory may have been killed a moment ago
        try:
            yield
        finally:
            _until(lambda: self._ended(drill))


def _until(holds: Callable[[], object], within_s: float = 120.0) -> None:
    until(holds, within_s, _LOOK_EVERY_S)


def kinds(settings: Settings) -> list[str]:
    """The faults there are for a stack's store."""
    embedded = [] if settings.documents_url else [LOCKED]
    return [*Fault, *embedded]


def soak(trials: int, scale: dict[str, float], seed: int) -> dict[str, Any]:
    """So many trials on a stack of their own, each fault in turn, in an order of chance."""
    random.seed(seed)
    with stack(**scale) as driver:
        running, done = Soak(driver), []
        order: list[str] = []
        for number in range(trials):
            order = order or random.sample(kinds(driver.settings), len(kinds(driver.settings)))
            done.append(running.trial(order.pop(), number))
            _tell(done[-1])
        unreceipted = running.refusals_are_receipted()
        bars = (
            33 * driver.settings.health_interval_s / 10,
            3 * driver.settings.probe_interval_s / 2,
        )
    detected, recovered = ([getattr(t, n) for t in done] for n in ("detected_s", "recovered_s"))
    return {
        "trials": trials,
        "bars_s": bars,
        "detected_s": {"median": statistics.median(detected), "max": max(detected)},
        "recovered_s": {"median": statistics.median(recovered), "max": max(recovered)},
        "offered": sum(t.offered for t in done),
        "accepted": sum(t.accepted for t in done),
        "refused": sum(t.refused for t in done),
        "faults": [f"{t.account_id}: {fault}" for t in done for fault in t.faults] + unreceipted,
        "each": [asdict(t) for t in done],
    }


def _tell(done: Trial) -> None:
    print(
        f"{done.fault:<8} noticed {done.detected_s:6.2f} s  recovered {done.recovered_s:5.2f} s  "
        f"down {done.down_s:6.2f} s  offered {done.offered} accepted {done.accepted} refused "
        f"{done.refused} hiccups {done.hiccups}  {'; '.join(done.faults) or 'all books agree'}",
        file=sys.stderr,
        flush=True,
    )


def main(
    fast: Annotated[int, typer.Option(help="Trials with all intervals divided by ten.")] = 27,
    real: Annotated[int, typer.Option(help="Trials in real time.")] = 3,
    quiet: Annotated[float, typer.Option(help="Minutes of full load without any fault.")] = 30,
    seed: Annotated[int, typer.Option(help="For the same order and phases again.")] = 4,
) -> None:
    """Run the trials and print one JSON value; exit 1 when something did not hold."""
    result: dict[str, Any] = {"machine": machine(), "seed": seed}
    if fast:
        result["fast"] = soak(fast, TENTH, seed)
    if real:
        result["real"] = soak(real, {}, seed + 1)
    if quiet:
        with stack() as driver:
            result["quiet"] = Soak(driver).quiet(quiet)
    print(json.dumps(result, indent=1))
    books = [fault for name in ("fast", "real") for fault in result.get(name, {}).get("faults", [])]
    late = [name for name in ("fast", "real") if name in result and _is_late(result[name])]
    raise typer.Exit(1 if books or late or not result.get("quiet", {"met": True})["met"] else 0)


def _is_late(part: dict[str, Any]) -> bool:
    detected, recovered = part["bars_s"]
    return bool(part["detected_s"]["max"] > detected or part["recovered_s"]["max"] > recovered)


if __name__ == "__main__":
    typer.run(main)
