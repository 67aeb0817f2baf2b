"""The reaper: ends what its own process cannot end any more, every second.

It reads, fences and enqueues; handlers and undos are never run here. Documents decide: a slot or a
message is only a hint to look.
"""

import logging

from governor import records
from governor.fsm import RUN_OPEN, RunState
from governor.health import Scope
from governor.quota import Verdict
from governor.records import Run, elapsed_ms, instant
from ports import Ports
from ports.documents import Where, every
from tasks import publish
from tasks.actions import reap
from tasks.runs.definition import RUNBOOKS_BY_NAME
from tasks.runs.journal import claims_of, is_due, is_free
from tasks.sweep import alone, isolating_errors

_LOG = logging.getLogger("ggen.reaper")
_RUN_STALE_S, _RUN_RESTART_EVERY_S = 2.0, 3.0
_RUN_DEAD_EVERY_S, _RUN_RESTART_AT_LEAST_S, _UNKNOWN_EVERY_S = 1.0, 10.0, 600.0
_SCAN_EVERY_S = 60
_ALONE_S = 6.0
"""How long a sweep is alone: longer than it begins new looks, and than a call that hangs."""


def sweep(ports: Ports) -> None:
    """One look at everything that is due, by one reaper at a time; each minute at everything.

    One that hangs keeps the next away for a while, and so one process free for health checks.
    """
    if not ports.memory.claim_tick("reap", 0.8) or rests(ports):
        return
    with alone(ports, "reaping", _ALONE_S) as is_alone:
        if not is_alone:
            return
        look(ports)
        if ports.memory.claim_tick("reap-all", _SCAN_EVERY_S):
            ports.memory.note_orphans(reap.look_at_all(ports))


def rests(ports: Ports) -> bool:
    """Whether the store is in doubt. What the spool knows is asked for each action by itself."""
    if ports.memory.standing(records.SYSTEM_ACCOUNT) is not Verdict.ADMITTED:
        return True
    return ports.memory.health(Scope.ALL).failures > 0


def look(ports: Ports) -> None:
    """End what is past its time, take up what was dropped."""
    reap.look_at_due(ports)
    for document in every(ports.documents, "runs", Where("state", "in", RUN_OPEN)):
        with isolating_errors(document.path):
            _look_at_run(ports, Run.stored(document.data))


def _look_at_run(ports: Ports, run: Run) -> None:
    """Have a run taken up again that nobody is at: put off, dropped, or left by a dead process."""
    age_s = elapsed_ms(run.started_at, ports.clock.now()) / 1000
    if not is_due(ports, run) or not is_free(ports, run):
        return
    is_late = ports.clock.now() > instant(run.deadline_at)
    every_s = _RUN_DEAD_EVERY_S
    if not (claims_of(run) or run.retry_at or is_late):
        # Its message was lost, or waits in a long queue: ask less and less often.
        every_s = min(_RUN_RESTART_AT_LEAST_S, max(_RUN_RESTART_EVERY_S, age_s / 2))
        if age_s < _RUN_STALE_S or _waits_its_turn(ports, run):
            return
    if run.runbook not in RUNBOOKS_BY_NAME:
        if ports.memory.claim_tick(f"unknown:{run.run_id}", _UNKNOWN_EVERY_S):
            _LOG.error("run %s is of %s, which nobody here knows", run.run_id, run.runbook)
        return
    if ports.memory.claim_tick(f"restart:{run.run_id}", every_s):
        _LOG.warning("run %s (%s) is taken up again", run.run_id, run.state)
        publish.run(run)


def _waits_its_turn(ports: Ports, run: Run) -> bool:
    if run.state is not RunState.PENDING or run.cancellation:
        return False
    turn = ports.documents.get(records.turn_path(run.account_id))
    return turn is not None and turn.data["run_id"] != run.run_id
