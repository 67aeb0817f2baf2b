"""Compensation: a failed run's undos, in reverse, each claimed and journalled before it acts."""

import logging
from typing import Any

from governor.actions import error_code
from governor.errors import ConflictError
from governor.fsm import RUN, RunState, advance
from ports import Ports
from ports.documents import Update
from tasks.emit import alert, land, receipt, tell
from tasks.journal import end, load, may_take, with_entry
from tasks.runbook import ElsewhereError, Runbook

_LOG = logging.getLogger("ggen.runs")


def compensate(ports: Ports, runbook: Runbook, run_id: str) -> None:
    """Undo a failed run's steps in reverse and end it; safe to repeat from any point.

    Of two processes at it, the second gives way as soon as it meets the first one's journal.
    """
    try:
        _undo_steps(ports, runbook, run_id)
    except ConflictError as error:
        _LOG.info("run %s is undone elsewhere (%s)", run_id, error)
    except Exception as error:
        _tell_of_failed_undo(ports, run_id, error)
        raise


def _undo_steps(ports: Ports, runbook: Runbook, run_id: str) -> None:
    for step in reversed(runbook.steps):
        found, run = load(ports, run_id)
        if run.state is not RunState.COMPENSATING:
            return
        entry = run.journal.get(step.name)
        if entry is None or entry.state == "undone":
            continue
        if entry.undo_claim and not may_take(ports, entry.undo_claim):
            raise ElsewhereError("undone-elsewhere", f"{step.name} is being undone")
        # Claimed before it acts: the run cannot end, nor another begin, while an undo is at work.
        claim = ports.processes.claim(ports.clock.now())
        claimed = with_entry(run, step.name, entry.evolve(undo_claim=claim))
        land(ports, [Update(found.path, claimed.document(), found.revision)])
        step.undo(ports, run, entry)
        found, run = load(ports, run_id)
        mine = run.journal.get(step.name)
        if mine is None or mine.undo_claim != claim:
            raise ElsewhereError("undone-elsewhere", f"{step.name} was taken over")
        undone = with_entry(run, step.name, entry.evolve(state="undone"))
        land(ports, [Update(found.path, undone.document(), found.revision)])
    found, run = load(ports, run_id)
    if run.state is not RunState.COMPENSATING:
        return
    proof = runbook.refused(ports, run, run.failed_step or runbook.steps[0].name)
    ended = run.evolve(
        state=advance(RUN, run.state, "undone_for_now" if run.retryable else "undone_for_good"),
        receipt_id=proof.data["receipt_id"],
    )
    update = Update(found.path, ended.document(), found.revision)
    end(ports, runbook, ended, [update, proof])


def _tell_of_failed_undo(ports: Ports, run_id: str, error: Exception) -> None:
    """Receipt and alarm an undo that failed, once a run's attempt; the reaper tries it again."""
    _LOG.error("an undo of run %s failed; it will be tried again", run_id, exc_info=error)
    _found, run = load(ports, run_id)
    words: dict[str, Any] = {"error_code": error_code(error), "error_detail": str(error)[:1024]}
    proof = receipt(
        ports, "compensation_failed", run.account_id, run_id, attempt=run.attempt, status="failed",
        run_id=run_id, failed_step=run.failed_step or "unknown", **words,
    )  # fmt: skip
    raised, told = alert(
        ports, "critical", "compensation_failed", run.account_id, run_id,
        f"{words['error_code']}: {words['error_detail']}", attempt=run.attempt,
        cause_receipt=proof,
    )  # fmt: skip
    tell(ports, told, proof, raised)
