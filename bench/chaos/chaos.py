"""Real processes under random faults for a set time, then all books compared: ``make chaos``.

The seed decides which fault comes when. A table says which alerts each fault must raise, and which
it may; an alert without a cause counts as a fault of the system, as does a fault without its alert.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from adapters.local.waiting import until
from bench.chaos.clock import WallClock, had_by_children, wall_clock
from bench.chaos.faults import CHANCE, FAULTS, FLOODED, Fault, small_disk
from bench.chaos.host import OtherHost, can_have_one, is_ready
from bench.chaos.soak import Soak, Trial
from bench.chaos.visits import Visits
from bench.load import Load
from bench.measure import machine
from bench.stack import Driver, programs, stack
from config.settings import Settings, environment
from governor.quota import Verdict, month_of
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import every
from tasks.ledgers.audit import audit_ledger

SHORT = {
    "health_interval_s": 2.0,
    "probe_interval_s": 0.5,
    "lease_s": 7.0,
    "store_timeout_s": 0.5,
    "tally_interval_s": 2.0,
}
"""Intervals of a stack that notices, and heals, soon."""

ACCOUNTS = ("chaos-a", "chaos-b", FLOODED)
_PER_S, _EMULATED_PER_S = 8, 4
"""Signals of each account. Firestore's emulator has no index: it looks through a whole collection
for each query, and half an hour of 8 a second keeps more than a core busy."""

_ALWAYS = frozenset({"rollback_failed", "action_failed", "no-alert-address", "policy_refused"})
"""What the load itself may raise: its handlers fail, and an undo may be cut off by a kill."""

_NOT_ACCEPTED = "OSError: [Errno 24] Too many open files"
"""Of a connection that waits for a file descriptor; one that a request misses names a file."""


@dataclass
class Chaos:
    """One stack, its tenants, and what was done to it."""

    driver: Driver
    other: OtherHost | None = None
    clock: WallClock | None = None
    disk: Path | None = None
    soak: Soak = field(init=False)
    visits: Visits = field(init=False)
    loads: list[Load] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.soak = Soak(self.driver, read_within_s=15)  # an emulator reads a long ledger slowly
        self.visits = Visits(self.driver, self.soak.ports)

    @property
    def settings(self) -> Settings:
        """The stack's."""
        return self.driver.settings

    @property
    def ports(self) -> Ports:
        """The stack's stores, seen from outside."""
        return self.soak.ports

    def program(self, name: str) -> psutil.Process:
        """A program of the supervisor, as soon as it runs."""
        running = until(lambda: [p for n, p in programs(self.settings).items() if n == name], 30)
        return running[0]

    def children(self, name: str) -> list[psutil.Process]:
        """The children of a program, as soon as it has some."""
        return until(lambda: self.program(name).children(), 30)

    @property
    def faults(self) -> dict[str, Fault]:
        """Those that this machine and these stores allow."""
        return {name: fault for name, fault in FAULTS.items() if fault.needs(self)}

    def play(self, seconds: float) -> None:
        """Random faults, and a second beat all the while, under load."""
        for account in ACCOUNTS:
            self.driver.subscribe(account, "professional")
        doors = [self.settings, self.other.settings if self.other else self.settings]
        per_s = _EMULATED_PER_S if self.settings.documents_url else _PER_S
        with ExitStack() as during:
            during.enter_context(_second_beat(self.settings))
            for account, door in zip(ACCOUNTS, doors, strict=False):
                self.loads.append(during.enter_context(Load(door, account, per_s=per_s)))
            give_up_at = time.monotonic() + seconds
            while time.monotonic() < give_up_at:
                self._hurt(CHANCE.choice(list(self.faults)))
                time.sleep(CHANCE.random() * 5)
            self._heal()

    def _hurt(self, name: str) -> None:
        began_s = time.monotonic()
        with suppress(psutil.NoSuchProcess):  # what was to be hurt ended first
            FAULTS[name].do(self)
            self.done[name] += 1
        print(f"{name:<36} {time.monotonic() - began_s:5.1f} s", file=sys.stderr, flush=True)

    def _heal(self) -> None:
        until(lambda: is_ready(self.settings), 120)
        if self.other:
            until(self.other.answers, 120)

    def compare(self) -> list[str]:
        """What does not hold in the end."""
        trial = Trial("chaos", "")
        by_account: dict[str, dict[str, str]] = {account: {} for account in ACCOUNTS}
        for load in self.loads:
            by_account[load.account_id] |= load.settled(900)
        for account, accepted in by_account.items():
            trial.account_id = account
            self.soak.check_ends(trial, accepted)
            until(lambda a=account: audit_ledger(self.ports, a).unsealed == 0, 60)  # type: ignore[misc]
            report = audit_ledger(self.ports, account)
            trial.expect(report.is_valid, f"ledger of {account}: {report.findings[:3]}")
            month = month_of(self.ports.clock.now())
            used = self.ports.governors.used(account, "demo-sku", month)
            trial.expect(used == len(accepted), f"{account}: {used} used, {len(accepted)} accepted")
        trial.faults.extend(self.visits.compare())
        self._at_rest(trial)
        self._alerts(trial)
        trial.faults.extend(self._internal_errors())
        return trial.faults

    def carried_out(self) -> dict[str, int]:
        """How many actions each host has claimed."""
        found = Counter[str]()
        for document in every(self.ports.documents, "actions", group=True):
            claim = document.data["claim"]
            found[claim["host"] if claim else "none"] += 1
        return dict(found)

    def _internal_errors(self) -> list[str]:
        """What the ingress answered 500 to: a fault of ours, whatever was done to it."""
        count = sum(1 for load in self.loads for each in load.answers if each.status == 500)
        if not count:
            return []
        logs = "\n".join(f.read_text() for f in self.settings.log_dir.glob("ingress*"))
        errors = Counter(re.findall(r"^(?:\w+\.)*\w+(?:Error|Exception)\b.*$", logs, re.MULTILINE))
        told = [error for error, _ in errors.most_common() if error != _NOT_ACCEPTED]
        return [f"{count} signals were answered 500: {told[:5]}"]

    def _at_rest(self, trial: Trial) -> None:
        until(lambda: self.ports.lease.standing("_system") is Verdict.ADMITTED, 60)
        held = self.ports.slots.held_count
        try:
            until(lambda: not held(), 60)
        except TimeoutError:
            trial.expect(False, f"{held()} slots are held")
        depth, _ = self.ports.dispatch.queues(1)
        trial.expect(depth == 0, f"{depth} actions wait")
        trial.expect(not list(self.ports.spool.names("spool/")), "the spool is not empty")
        turns = list(every(self.ports.documents, "turns"))
        trial.expect(not turns, f"{len(turns)} turns are held")

    def _alerts(self, trial: Trial) -> None:
        raised = set[str]()
        for document in every(self.ports.documents, "receipts", group=True):
            fields = SignedReceipt.stored(document.data).fields()
            if fields["operation"] == "alert_raised":
                raised.add(fields["cause"])
        must = set[str]().union(*(FAULTS[name].must for name in self.done))
        may = must.union(*(FAULTS[name].may for name in self.done)) | _ALWAYS
        trial.expect(must <= raised, f"no alert says {sorted(must - raised)}")
        trial.expect(raised <= may, f"nothing was done that explains {sorted(raised - may)}")


@contextmanager
def _second_beat(settings: Settings) -> Iterator[None]:
    """Another beat on the same broker: each tick is claimed, so that it does no harm."""
    with (settings.log_dir / "second-beat.log").open("ab") as log:
        beat = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "run", "beat"],
            env=environment(settings),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(beat.pid, signal.SIGTERM)
        beat.wait()


def _keep_logs(chaos: Chaos) -> None:
    """Copy every program's log to where it outlives the stack's own folder, and say where."""
    kept = Path(tempfile.mkdtemp(prefix="ggen-chaos-", dir="/tmp"))
    for settings in [chaos.settings, *([chaos.other.settings] if chaos.other else [])]:
        shutil.copytree(settings.log_dir, kept / settings.state_dir.name)
    print(f"the logs are kept: {kept}", file=sys.stderr)


def main(
    minutes: Annotated[float, typer.Option(help="For how long faults come.")] = 30,
    seed: Annotated[int, typer.Option(help="For the same faults in the same order.")] = 4,
    fill_disk: Annotated[bool, typer.Option(help="Fill a small disk, too (as root).")] = False,
    keep: Annotated[Path | None, typer.Option(help="Write the result here, too.")] = None,
) -> None:
    """Hurt a stack for a while, and compare all books; exit 1 when something does not hold."""
    CHANCE.seed(seed)
    with ExitStack() as all_of_it:
        disk = all_of_it.enter_context(small_disk()) if fill_disk else None
        clock = wall_clock(Path(all_of_it.enter_context(tempfile.TemporaryDirectory())))
        with had_by_children(clock):
            driver = all_of_it.enter_context(stack(**SHORT))
        has_two = can_have_one(driver.settings)
        other = all_of_it.enter_context(OtherHost(driver.settings)) if has_two else None
        chaos = Chaos(driver, other, clock, disk)
        try:
            chaos.play(minutes * 60)
            faults, carried_out = chaos.compare(), chaos.carried_out()
        except Exception:
            _keep_logs(chaos)
            raise
        if faults:
            _keep_logs(chaos)
    seen = Counter[int]()
    for load in chaos.loads:
        seen += load.statuses()
    told: dict[str, Any] = {
        "machine": machine(),
        "seed": seed,
        "minutes": minutes,
        "done": dict(chaos.done),
        "not_possible_here": sorted(FAULTS.keys() - chaos.faults.keys()),
        "answers": {str(status): count for status, count in sorted(seen.items())},
        "carried_out_by": carried_out,
        "faults": faults,
    }
    text = json.dumps(told, indent=1)
    print(text)
    if keep:
        keep.write_text(text + "\n")
    raise typer.Exit(1 if faults else 0)


if __name__ == "__main__":
    typer.run(main)
