"""Real processes under random faults for a set time, then all books compared: ``make chaos``.

The seed decides which fault comes when. A table says which alerts each fault must raise, and which
it may; an alert without a cause counts as a fault of the system, as does a fault without its alert.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from adapters.local.waiting import until
from bench.chaos.kills import kill, wipe
from bench.chaos.soak import LOCKED, Soak, Trial
from bench.load import Load
from bench.measure import machine
from bench.stack import Driver, ggen, programs, stack
from config.settings import Settings, environment
from governor.errors import OutageError
from governor.health import Scope
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

ACCOUNTS = ("chaos-a", "chaos-b", "chaos-c")
_LAPSE = frozenset({"degraded_mode_cleared"})
_OUTAGE = frozenset({"degraded_mode", "degraded_mode_cleared"})
_WAITING = frozenset({"actions-waiting"})
"""Accepted actions wait for more than 5 s: there were no workers, or too few."""

_ALWAYS = frozenset({"rollback_failed", "action_failed", "no-alert-address", "policy_refused"})
"""What the load itself may raise: its handlers fail, and an undo may be cut off by a kill."""

_NOT_ACCEPTED = "OSError: [Errno 24] Too many open files"
"""Of a connection that waits for a file descriptor; one that a request misses names a file."""

Do = Callable[["Chaos"], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """The harm, the alerts it must raise, and those it may raise besides."""

    do: Do
    must: frozenset[str] = frozenset()
    may: frozenset[str] = _OUTAGE


def _kill(program: str) -> Do:
    return lambda chaos: kill(chaos.settings, program)


def _stop_a_child(chaos: "Chaos") -> None:
    """SIGSTOP: a process that is paused in the middle of anything."""
    child = random.choice(chaos.children("actions"))  # noqa: S311
    child.suspend()
    time.sleep(random.choice((0.3, 2.0, 6.0)))  # noqa: S311
    child.resume()


def _exhaust_files(chaos: "Chaos") -> None:
    """No file descriptor is left for the ingress."""
    process = chaos.program("ingress")
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 1, before[1]))
    time.sleep(3)
    process.rlimit(psutil.RLIMIT_NOFILE, before)


def _lock(chaos: "Chaos") -> None:
    """The store takes no write for as long as it takes to be noticed, and a while longer."""
    with chaos.soak.failing(LOCKED):
        until(lambda: _is_degraded(chaos.ports), 60)
        time.sleep(random.random() * 4)  # noqa: S311


def _is_degraded(ports: Ports) -> bool:
    """Whether Memory says so; not while it was killed just now."""
    with suppress(OutageError):
        return ports.modes.health(Scope.ALL).is_degraded
    return False


def _lock_briefly(chaos: "Chaos") -> None:
    with chaos.soak.failing(LOCKED):
        time.sleep(0.3 + random.random())  # noqa: S311


def _flood(chaos: "Chaos") -> None:
    """A tenant sends far more than its plan allows at once."""
    with Load(chaos.settings, ACCOUNTS[2], per_s=0, clients=8) as load:
        time.sleep(2)
    chaos.loads.append(load)


FAULTS: dict[str, Fault] = {
    **{f"kill {name}": Fault(_kill(name)) for name in ("ingress", "pump", "runbooks")},
    "kill actions": Fault(_kill("actions"), may=_OUTAGE | _WAITING),
    **{f"kill {name}": Fault(_kill(name)) for name in ("health", "beat", "flower", "valkey")},
    "wipe Memory and broker": Fault(lambda chaos: wipe(chaos.settings), must=_LAPSE),
    "stop a child": Fault(_stop_a_child, may=_OUTAGE | _WAITING),
    "no file descriptors": Fault(_exhaust_files),
    "lock the store": Fault(_lock, must=_OUTAGE),
    "lock the store briefly": Fault(_lock_briefly),
    "rotate the keys": Fault(lambda chaos: ggen(chaos.settings, "keys", "rotate"), may=_OUTAGE),
    "flood": Fault(_flood, may=frozenset({"capacity"}) | _OUTAGE | _WAITING),
}
"""By name."""


@dataclass
class Chaos:
    """One stack, its tenants, and what was done to it."""

    driver: Driver
    soak: Soak = field(init=False)
    loads: list[Load] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.soak = Soak(self.driver)

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

    def play(self, seconds: float) -> None:
        """Random faults, and a second beat all the while, under load."""
        for account in ACCOUNTS:
            self.driver.subscribe(account, "professional")
        with ExitStack() as during:
            during.enter_context(_second_beat(self.settings))
            for account in ACCOUNTS[:2]:
                self.loads.append(during.enter_context(Load(self.settings, account, per_s=8)))
            give_up_at = time.monotonic() + seconds
            while time.monotonic() < give_up_at:
                self._hurt(random.choice(list(FAULTS)))  # noqa: S311
                time.sleep(random.random() * 5)  # noqa: S311
            self._heal()

    def _hurt(self, name: str) -> None:
        began_s = time.monotonic()
        with suppress(psutil.NoSuchProcess):  # what was to be hurt ended first
            FAULTS[name].do(self)
            self.done[name] += 1
        print(f"{name:<24} {time.monotonic() - began_s:5.1f} s", file=sys.stderr, flush=True)

    def _heal(self) -> None:
        until(lambda: self.driver.http.get("/readyz").status_code == 200, 120)

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
        self._at_rest(trial)
        self._alerts(trial)
        trial.faults.extend(self._internal_errors())
        return trial.faults

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


def main(
    minutes: Annotated[float, typer.Option(help="For how long faults come.")] = 30,
    seed: Annotated[int, typer.Option(help="For the same faults in the same order.")] = 4,
    keep: Annotated[Path | None, typer.Option(help="Write the result here, too.")] = None,
) -> None:
    """Hurt a stack for a while, and compare all books; exit 1 when something does not hold."""
    random.seed(seed)
    with stack(**SHORT) as driver:
        chaos = Chaos(driver)
        chaos.play(minutes * 60)
        faults = chaos.compare()
    seen = Counter[int]()
    for load in chaos.loads:
        seen += load.statuses()
    told: dict[str, Any] = {
        "machine": machine(),
        "seed": seed,
        "minutes": minutes,
        "done": dict(chaos.done),
        "answers": {str(status): count for status, count in sorted(seen.items())},
        "faults": faults,
    }
    text = json.dumps(told, indent=1)
    print(text)
    if keep:
        keep.write_text(text + "\n")
    raise typer.Exit(1 if faults else 0)


if __name__ == "__main__":
    typer.run(main)
