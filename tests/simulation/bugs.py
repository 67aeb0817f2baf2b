"""Bugs of this project's past, put back: what the simulation is worth is whether it finds them.

Each names the commit that mended it, and a seed in which it shows.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from adapters.valkey import slots
from governor.fsm import (
    ENTITLEMENT_ENDED,
    ENTITLEMENT_LIVE,
    GOVERNOR_LIVE,
    EntitlementState,
    GovernorState,
)
from governor.quota import Verdict
from governor.runs import Run
from ports import Ports
from tasks import ticks
from tasks.actions import admit, execute, storing, transitions
from tasks.actions.execute import Finished
from tasks.actions.transitions import Held
from tasks.governors import boot
from tasks.runbooks import RUNBOOKS, scale_governor
from tasks.runbooks.cancel import leftovers
from tasks.runbooks.scale.verdicts import Verified
from tasks.runs.definition import Result
from tests.simulation import broker
from tests.simulation.stores import SimMemory

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Bug:
    """What it was, the commit that mended it, a seed that shows it, and how it is put back."""

    what: str
    commit: str
    seed: int
    patches: Callable[[], Iterator[Patch]]


def _doors_open_early() -> Iterator[Patch]:
    yield boot, "_ABSENT", ENTITLEMENT_ENDED
    yield boot, "GOVERNOR_LIVE", (*GOVERNOR_LIVE, GovernorState.PROVISIONING)
    yield boot, "ENTITLEMENT_LIVE", (*ENTITLEMENT_LIVE, EntitlementState.PROVISIONING)


def _late_not_held() -> Iterator[Patch]:
    before = slots._HOLD.replace(
        "or ARGV[3] == '1' and not redis.call('ZSCORE', 'ggen:looks', string.match(ARGV[1], '^%S+'))",
        "",
    )
    assert before != slots._HOLD
    yield slots, "_HOLD", before
    yield storing, "STORED_WITHIN_S", 1000  # what is stored too late is refused since


def _place_back_too_early() -> Iterator[Patch]:
    real = execute.run

    def run(ports: Ports, held: Held) -> Any:
        told = real(ports, held)
        if isinstance(told, Finished):
            transitions.free_slot(ports, told.after)
        return told

    yield execute, "run", run


def _duplicate_refused() -> Iterator[Patch]:
    yield admit, "_NOT_ASKED", tuple(Verdict)


def _outage_told_twice() -> Iterator[Patch]:
    real = SimMemory.owe

    def owe(self: SimMemory, *asked: Any, lease_s: float = 0, **named: Any) -> bool:
        return real(self, *asked, lease_s=0 if named.get("instead_of") else lease_s, **named)

    yield SimMemory, "owe", owe


def _way_back_untold() -> Iterator[Patch]:
    runbook = scale_governor.RUNBOOK
    *others, last = runbook.steps

    def finish(_ports: Ports, run: Run) -> Result:
        return Result(ends_with=Verified.of(run).receipt_id)

    steps = (*others, replace(last, act=finish))
    bare = replace(runbook, steps=steps, ended=lambda _ports, _run: None)
    known = {**RUNBOOKS, bare.name: bare}
    yield broker, "KNOWN", known
    yield ticks, "RUNBOOKS", known


def _deleted_unread() -> Iterator[Patch]:
    def left_behind(ports: Ports, run: Run) -> int:
        return ports.signals.backlog(run.account_id)

    yield leftovers, "left_behind", left_behind


BUGS = {
    "doors-open-early": Bug(
        "signals are admitted before entitlement_active is committed",
        "9456ff1",
        3,
        _doors_open_early,
    ),
    "late-not-held": Bug(
        "a process that stood still stores a signal whose place and count were given back",
        "6b8761d",
        462,
        _late_not_held,
    ),
    "place-back-too-early": Bug(
        "an action gives its place back before its end is stored: too many at once",
        "4dee85b",
        32,
        _place_back_too_early,
    ),
    "duplicate-refused": Bug(
        "a signal that was accepted is refused when it is repeated",
        "9456ff1",
        52,
        _duplicate_refused,
    ),
    "outage-told-twice": Bug(
        "a check beside a recovery tells of an outage that never was",
        "e9d5347",
        903,
        _outage_told_twice,
    ),
    "way-back-untold": Bug(
        "a limit goes back in Documents, and admission goes on by the higher one",
        "4dee85b",
        262,
        _way_back_untold,
    ),
    "deleted-unread": Bug(
        "a topic is deleted with messages on it, and its receipt says that there were none",
        "840416d",
        337,
        _deleted_unread,
    ),
}
"""Name -> bug."""
