"""Beat's entries as Celery takes them; some fire only while there is something to do.

Beat asks Memory itself before it fires those: an idle system sends no message for them.
"""

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from celery.schedules import schedstate, schedule

from adapters import wiring
from governor.errors import OutageError
from governor.health import Scope
from governor.quota import Verdict
from governor.records import SYSTEM_ACCOUNT
from ports import Ports


class Steadily(schedule):
    """Due every so many seconds, by a count that goes on whatever the wall clock is set to.

    By the wall clock, as Celery reckons, nothing would be due for an hour after a clock that was an
    hour ahead for a moment.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds, nowfun=_counted)

    def __reduce__(self) -> tuple[Any, ...]:
        """For copies: Celery copies its entries."""
        return Steadily, (self.seconds,)


class OnlyWhile(Steadily):
    """Due every so many seconds, as long as something holds; also while Memory does not answer."""

    def __init__(self, seconds: float, holds: Callable[[Ports], bool]) -> None:
        super().__init__(seconds)
        self._holds = holds

    def is_due(self, last_run_at: Any) -> schedstate:
        """Whether to fire now, and in how many seconds to ask again."""
        due = super().is_due(last_run_at)
        if not due.is_due:
            return due
        try:
            fires = self._holds(wiring.ports())
        except OutageError:
            fires = True
        return due if fires else schedstate(False, self.seconds)

    def __reduce__(self) -> tuple[Any, ...]:
        return OnlyWhile, (self.seconds, self._holds)


def timetable(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The entries of ``beat_schedule.py``; those with ``only_while`` have such a schedule."""
    made = {name: dict(entry) for name, entry in entries.items()}
    for entry in made.values():
        seconds, condition = entry["schedule"], entry.pop("only_while", "")
        entry["schedule"] = (
            OnlyWhile(seconds, _CONDITIONS[condition]) if condition else Steadily(seconds)
        )
    return made


def _counted() -> datetime:
    """The seconds that have passed since some moment, as Celery wants them: as a time."""
    return datetime.fromtimestamp(time.monotonic(), UTC)


def _is_refused(ports: Ports) -> bool:
    """Whether the lease is missing, the mode is degraded, or a drill of some tenants is on."""
    if ports.lease.standing(SYSTEM_ACCOUNT) is not Verdict.ADMITTED:
        return True
    some, drill = ports.modes.health(Scope.SOME), ports.modes.drill()
    return bool(some.outage or some.failures or (drill and drill.scope is Scope.SOME))


def _is_unsealed(ports: Ports) -> bool:
    """Whether a ledger has grown."""
    return ports.unsealed.unsealed_count() > 0


def _is_watched(ports: Ports) -> bool:
    """Whether a version of a policy is on trial."""
    return any(each.is_watched for each in ports.broadcasts.in_force()[0])


def _is_pressed(ports: Ports) -> bool:
    """Whether a governor's limit is to be looked at."""
    return ports.loads.any_pressed()


def _is_traced(ports: Ports) -> bool:
    """Whether traces wait to be exported."""
    return ports.traces.is_on and bool(ports.measures.ended(1))


_CONDITIONS: Mapping[str, Callable[[Ports], bool]] = {
    "refused": _is_refused,
    "unsealed": _is_unsealed,
    "watched": _is_watched,
    "pressed": _is_pressed,
    "traced": _is_traced,
}
