"""The reaper's look at runs: put off, dropped, or left by a process that is gone.

It reads and enqueues; steps and undos are never run here. Documents decide.
"""

import logging

from governor import paths
from governor.fsm import RUN_OPEN, RunState
from governor.runs import Run
from governor.times import elapsed_ms, instant
from ports import Ports
from ports.documents import Where, every
from tasks import publish
from tasks.runs.definition import RUNBOOKS_BY_NAME
from tasks.runs.journal import claims_of, is_due, is_free
from tasks.sweep import isolating_errors

_LOG = logging.getLogger("ggen.reaper")
_RUN_STALE_S, _RUN_RESTART_EVERY_S = 2.0, 3.0
_RUN_DEAD_EVERY_S, _RUN_RESTART_AT_LEAST_S, _UNKNOWN_EVERY_S = 1.0, 10.0, 600.0


def look(ports: Ports) -> None:
    """Take up every run that was dropped."""
    for document in every(ports.documents, "runs", Where("state", "in", RUN_OPEN)):
        with isolating_errors(document.path):
            _look_at_run(ports, Run.stored(document.data))


def _look_at_run(ports: Ports, run: Run) -> None:
    """Have a run taken up again that no process is at: put off, dropped, or left by a dead one."""
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
        if ports.watches.claim_tick(f"unknown:{run.run_id}", _UNKNOWN_EVERY_S):
            _LOG.error("run %s is of %s, which this version does not know", run.run_id, run.runbook)
        return
    if ports.watches.claim_tick(f"restart:{run.run_id}", every_s):
        _LOG.warning("run %s (%s) is taken up again", run.run_id, run.state)
        publish.run(run)


def _waits_its_turn(ports: Ports, run: Run) -> bool:
    if run.state is not RunState.PENDING or run.cancellation:
        return False
    turn = ports.documents.get(paths.turn_path(run.account_id))
    return turn is not None and turn.data["run_id"] != run.run_id
