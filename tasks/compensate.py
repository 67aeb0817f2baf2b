"""Compensation: a failed run's undos, in reverse, each claimed and journalled before it acts.

An undo that fails is tried again, later each time; after ``PARK_AFTER`` failures the run is parked,
which is receipted and alarmed, and taken up again every few minutes until it holds.
"""

import logging

from governor.actions import error_code
from governor.errors import ConflictError
from governor.fsm import RUN, RunState, advance
from governor.records import Run
from ports import Ports
from ports.alerts import Alert
from ports.documents import Document, Update, Write
from tasks.emit import alert, land, receipt
from tasks.failure import FAULT_OF_OURS, patiently
from tasks.journal import end, is_due, is_same_process, later, load, may_take
from tasks.runbook import UNDOING, ElsewhereError, Runbook

_LOG = logging.getLogger("ggen.runs")
PARK_AFTER = 5
"""Undos failed in a row, over some 15 s, before a run is parked."""

_PARKED_FIRST_S, _PARKED_LONGEST_S = 60, 600


def compensate(ports: Ports, runbook: Runbook, run_id: str) -> None:
    """Undo a failed run's steps in reverse and end it; safe to repeat from any point.

    Of two processes at it, the second gives way as soon as it meets the first one's journal.

    Raises:
        OutageError: the store does not answer; the reaper has it undone later.
    """
    try:
        found, run = load(ports, run_id)
        if run.state not in UNDOING or not is_due(ports, run):
            return
        if run.state is RunState.PARKED:
            retried = run.evolve(state=advance(RUN, run.state, "retry"), retry_at=None)
            land(ports, [Update(found.path, retried.document(), found.revision)])
        _undo_steps(ports, runbook, run_id)
        _end(ports, runbook, run_id)
    except ConflictError as error:
        _LOG.info("run %s is undone elsewhere (%s)", run_id, error)
    except Exception as error:  # whatever an undo raises, its run must not be stuck
        _put_off(ports, run_id, error)


def _undo_steps(ports: Ports, runbook: Runbook, run_id: str) -> None:
    for step in reversed(runbook.steps):
        found, run = load(ports, run_id)
        if run.state is not RunState.COMPENSATING:
            raise ElsewhereError("undone-elsewhere", f"the run is {run.state}")
        entry = run.journal.get(step.name)
        if entry is None or entry.state == "undone" or not step.undoes:
            continue
        if entry.undo_claim and not may_take(ports, entry.undo_claim):
            raise ElsewhereError("undone-elsewhere", f"{step.name} is being undone")
        # Claimed before it acts: the run cannot end, nor another begin, while an undo is at work.
        claim = ports.processes.claim(ports.clock.now())
        _journal(ports, found, run, step.name, undo_claim=claim)
        patiently(step.undo, ports, run, entry)
        found, run = load(ports, run_id)
        mine = run.journal.get(step.name)
        if mine is None or mine.undo_claim != claim:
            raise ElsewhereError("undone-elsewhere", f"{step.name} was taken over")
        _journal(ports, found, run, step.name, state="undone", error=None)


def _journal(ports: Ports, found: Document, run: Run, step_name: str, **changes: object) -> None:
    entry = run.journal[step_name].evolve(**changes)
    written = run.evolve(journal={**run.journal, step_name: entry})
    land(ports, [Update(found.path, written.document(), found.revision)])


def _end(ports: Ports, runbook: Runbook, run_id: str) -> None:
    """One commit of the run's end, its receipt, and the alert where somebody must look."""
    found, run = load(ports, run_id)
    failed_step = run.failed_step or runbook.steps[0].name
    proof = runbook.refused(ports, run, failed_step)
    event = "undone_for_now" if run.retryable else "undone_for_good"
    writes: list[Write] = [proof]
    if run.cancellation:
        event = "undone_on_request"
        writes.append(
            receipt(
                ports, "run_cancelled", run.account_id, run_id, attempt=run.attempt,
                status="cancelled", run_id=run_id, operator=run.cancellation.operator,
                reason=run.cancellation.reason,
            )
        )  # fmt: skip
    told: Alert | None = None
    cause = _alarm(runbook, run, failed_step)
    if cause:
        raised, told = alert(
            ports, "critical", cause, run.account_id, run_id,
            f"{failed_step}: {run.error_code}: {run.error_detail}",
            attempt=run.attempt, cause_receipt=proof,
        )  # fmt: skip
        writes.append(raised)
    ended = run.evolve(
        state=advance(RUN, run.state, event), receipt_id=proof.data["receipt_id"], retry_at=None
    )
    end(ports, runbook, ended, [Update(found.path, ended.document(), found.revision), *writes])
    if told:
        ports.alerts.send(told)


def _alarm(runbook: Runbook, run: Run, failed_step: str) -> str | None:
    """The cause of an alert, where a person should know that the run failed."""
    if run.error_code == FAULT_OF_OURS:
        return "run_fault"
    known = {step.name: step.alarm for step in runbook.steps}
    return known.get(failed_step) if run.retryable else None


def _put_off(ports: Ports, run_id: str, error: Exception) -> None:
    """Have the undo tried again later; after many failures park the run, and raise an alarm."""
    _LOG.error("an undo of run %s failed; it is tried again", run_id, exc_info=error)
    found, run = load(ports, run_id)
    if run.state is not RunState.COMPENSATING:
        return
    attempts, words = run.undo_attempts + 1, f"{error_code(error)}: {error}"[:1024]
    freed = {
        name: entry.evolve(undo_claim=None, error=words)
        if entry.undo_claim and is_same_process(ports, entry.undo_claim)
        and entry.state != "undone" else entry
        for name, entry in run.journal.items()
    }  # fmt: skip
    off = run.evolve(journal=freed, undo_attempts=attempts, retry_at=later(ports, attempts))
    if attempts < PARK_AFTER:
        _land(ports, [Update(found.path, off.document(), found.revision)])
        return
    parked_for = later(
        ports, attempts - PARK_AFTER + 1, first_s=_PARKED_FIRST_S, longest_s=_PARKED_LONGEST_S
    )
    parked = off.evolve(state=advance(RUN, off.state, "park"), retry_at=parked_for)
    writes: list[Write] = [Update(found.path, parked.document(), found.revision)]
    if attempts > PARK_AFTER:  # told already
        _land(ports, writes)
        return
    proof = receipt(
        ports, "compensation_failed", run.account_id, run_id, attempt=run.attempt, status="failed",
        run_id=run_id, failed_step=run.failed_step or "unknown", error_code=error_code(error),
        error_detail=str(error)[:1024],
    )  # fmt: skip
    raised, told = alert(
        ports, "critical", "compensation_failed", run.account_id, run_id, words,
        attempt=run.attempt, cause_receipt=proof,
    )  # fmt: skip
    if _land(ports, [*writes, proof, raised]):
        ports.alerts.send(told)


def _land(ports: Ports, writes: list[Write]) -> bool:
    try:
        land(ports, writes)
    except ConflictError:
        return False  # another process moved the run, and goes on from there
    return True
