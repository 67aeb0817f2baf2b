"""Beat's entries as Celery takes them; one kind fires only while something is refused."""

from collections.abc import Mapping
from typing import Any

from celery.schedules import schedstate, schedule

from adapters import wiring
from governor.errors import OutageError
from governor.health import Scope
from governor.quota import Verdict
from governor.records import SYSTEM_ACCOUNT


class WhileRefused(schedule):
    """Due every so many seconds while the lease is missing, the mode is degraded, or a drill is on.

    Beat asks Memory itself: a healthy system sends no message. A Memory that is away refuses too.
    """

    def is_due(self, last_run_at: Any) -> schedstate:
        """Whether to fire now, and in how many seconds to ask again."""
        due = super().is_due(last_run_at)
        if due.is_due and not _is_refused():
            return schedstate(False, self.seconds)
        return due


def timetable(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The entries of ``beat_schedule.py``, with a schedule for those marked ``while_refused``."""
    made = {name: dict(entry) for name, entry in entries.items()}
    for entry in made.values():
        if entry.pop("while_refused", False):
            entry["schedule"] = WhileRefused(entry["schedule"])
    return made


def _is_refused() -> bool:
    ports = wiring.ports()
    try:
        if ports.lease.standing(SYSTEM_ACCOUNT) is not Verdict.ADMITTED:
            return True
        some, drill = ports.modes.health(Scope.SOME), ports.modes.drill()
    except OutageError:
        return True
    return bool(some.outage or some.failures or (drill and drill.scope is Scope.SOME))
