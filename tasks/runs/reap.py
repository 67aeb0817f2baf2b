"""The reaper's look at runs: put off, dropped, waiting, or left by a process that is gone.

It reads and sends chains; steps and undos are never run here. Documents decide.
"""

import logging

from governor import paths
from governor.fsm import RUN_OPEN
from governor.runs import Run
from governor.times import elapsed_ms
from ports import Ports
from ports.documents import Where, every
from tasks.runs import waits
from tasks.runs.definition import Runbooks
from tasks.runs.journal import (
    claims_of,
    deadline,
    is_due,
    is_free,
    is_next_in_turn,
    send,
    waits_its_turn,
)
from tasks.sweep import isolating_errors

_LOG = logging.getLogger("ggen.reaper")
_RUN_STALE_S, _RUN_RESTART_EVERY_S = 2.0, 3.0
_RUN_DEAD_EVERY_S, _RUN_RESTART_AT_LEAST_S, _UNKNOWN_EVERY_S = 1.0, 10.0, 600.0


def look(ports: Ports, runbooks: Runbooks) -> None:
    """Take up each run that was dropped or whose wait is over; count the runs of each state."""
    states = dict.fromkeys((f"run|{state}" for state in RUN_OPEN), 0)
    for document in every(ports.documents, "runs", Where("state", "in", RUN_OPEN)):
        with isolating_errors(document.path):
            run = Run.stored(document.data)
            states[f"run|{run.state}"] += 1
            _look_at_run(ports, runbooks, run)
    ports.measures.note_states(states)


def _look_at_run(ports: Ports, runbooks: Runbooks, run: Run) -> None:
    """Have a run taken up again that no process is at: put off, dropped, or left by a dead one."""
    if not is_due(ports, run) or not is_free(ports, run):
        return
    runbook = runbooks.get(run.runbook)
    if runbook is None:
        if ports.watches.claim_tick(f"unknown:{run.run_id}", _UNKNOWN_EVERY_S):
            _LOG.error("run %s is of %s, which this version does not know", run.run_id, run.runbook)
        return
    every_s = _restart_every_s(ports, runbooks, run)
    if every_s and ports.watches.claim_tick(f"restart:{run.run_id}", every_s):
        _LOG.warning("run %s (%s) is taken up again", run.run_id, run.state)
        send(runbooks, run)


def _restart_every_s(ports: Ports, runbooks: Runbooks, run: Run) -> float:
    """How often such a run is taken up; 0 where it is not to be, for now."""
    step = waits.waiting_step(runbooks[run.runbook], run)
    if step and not run.cancellation:
        tick = f"wait:{run.run_id}"
        if not (ports.watches.claim_tick(tick, step.poll_s) and waits.is_over(ports, step, run)):
            return 0
        ports.watches.drop_tick(tick)  # its chain may be lost, too
        return _RUN_DEAD_EVERY_S
    is_late = ports.clock.now() > deadline(ports, run) and not waits_its_turn(run)
    if claims_of(run) or run.retry_at or is_late or run.cancellation:
        return _RUN_DEAD_EVERY_S
    # Its message was lost, or waits in a long queue: ask less and less often.
    age_s = elapsed_ms(run.started_at, ports.clock.now()) / 1000
    if age_s < _RUN_STALE_S or (waits_its_turn(run) and _is_taken(ports, runbooks, run)):
        return 0
    return min(_RUN_RESTART_AT_LEAST_S, max(_RUN_RESTART_EVERY_S, age_s / 2))


def _is_taken(ports: Ports, runbooks: Runbooks, run: Run) -> bool:
    turn = ports.documents.get(paths.turn_path(run.turn))
    if turn is None:
        return not is_next_in_turn(ports, run, runbooks)
    return bool(turn.data["run_id"] != run.run_id)
