"""Compensation: a failed run's undos, in reverse, each a task, claimed before it acts.

An undo that fails is tried again, later each time; after ``PARK_AFTER`` failures the run is parked,
which is receipted and alarmed, and taken up again every few minutes until it holds.
"""

import logging

from governor.actions import error_code
from governor.errors import ConflictError, public_detail
from governor.fsm import RUN, RUN_OPEN, RUN_UNDOING, RunState, advance
from governor.records import ProcessClaim
from governor.runs import Run, Trigger
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.alerts import Alert
from ports.documents import Document, Update, Write
from tasks.outcomes import ALREADY_DONE, DONE, Outcome, put_off, step_failed
from tasks.receipts.commit import alert, commit_once, explained
from tasks.receipts.fence import or_kill_self
from tasks.runs import spread
from tasks.runs.definition import ElsewhereError, Runbook, Runbooks, Step
from tasks.runs.failure import FAULT_OF_OURS, code_of, with_retries
from tasks.runs.fenced import Fenced
from tasks.runs.journal import (
    claim_from,
    end,
    is_due,
    is_same_process,
    later,
    load,
    may_take,
    with_entry,
)

_LOG = logging.getLogger("ggen.runs")
PARK_AFTER = 5
"""Undos of a run that failed, over some 15 s, before it is parked."""

_PARKED_FIRST_S, _PARKED_LONGEST_S = 60, 600


def undo_link(
    ports: Ports, runbooks: Runbooks, runbook: Runbook, task: str, run_id: str
) -> Outcome:
    """Undo one step of a failed run, or commit its end; safe to repeat from any point.

    Of two processes at it, the second gives way as soon as it meets the first one's journal.

    Raises:
        OutageError: the store does not answer; the reaper has it undone later.
    """
    found, run = load(ports, run_id)
    if run.state not in RUN_OPEN:
        return ALREADY_DONE
    if run.state not in RUN_UNDOING:
        return put_off("the run is not being undone")
    if not is_due(ports, run):
        return put_off(f"until {run.retry_at}")
    try:
        if run.state is RunState.PARKED:
            retried = run.evolve(state=advance(RUN, run.state, "retry"), retry_at=None)
            _land_or_give_way(ports, [Update(found.path, retried.document(), found.revision)])
        return _undo_or_end(ports, runbooks, runbook, task, run_id)
    except ElsewhereError as error:
        _LOG.info("run %s is undone elsewhere (%s)", run_id, error)
        return put_off(f"it is undone elsewhere ({error.code})")
    except Exception as error:  # whatever an undo raises, its run must not be stuck
        _LOG.error("an undo of run %s failed; it is tried again", run_id, exc_info=error)
        failure = error
    return or_kill_self(lambda: with_retries(_put_off, ports, run_id, failure))


def _undo_or_end(
    ports: Ports, runbooks: Runbooks, runbook: Runbook, task: str, run_id: str
) -> Outcome:
    found, run = load(ports, run_id)
    if unknown := runbook.unknown(run):
        raise ConflictError(
            "unknown-step",
            f"this version does not know how to undo {', '.join(unknown)}; a worker of the "
            "version that carried it out does",
        )
    left = runbook.undoes(run)
    if task == runbook.undone_name:
        if left:
            return put_off("an undo before it is not done")
        _end(ports, runbooks, runbook, run_id)
        return DONE
    step = next((each for each in left if each.undo_name == task), None)
    if step is None:
        return ALREADY_DONE
    if step is not left[0]:
        return put_off("an undo before it is not done")
    return _undo(ports, runbooks, found, run, step)


def _undo(ports: Ports, runbooks: Runbooks, found: Document, run: Run, step: Step) -> Outcome:
    entry = run.journal[step.name]
    if entry.undo_claim and not may_take(ports, entry.undo_claim):
        raise ElsewhereError("undone-elsewhere", f"{step.name} is being undone")
    # Claimed before it acts: the run cannot end, nor another begin, while an undo is at work.
    acting = entry.claim if entry.state == "intent" else None
    claim = claim_from(ports, entry.undo_claim or acting)
    at = Fenced.at(found, run, step.name)
    at.save(ports, run, entry.evolve(undo_claim=claim), [])
    if step.undo_chunk is None:
        with_retries(step.undo, ports, run, entry)
    elif not spread.Through(ports, runbooks, at, step.undo_chunk, is_undo=True).go_on():
        return put_off("some are undone; it goes on")
    with_retries(_note_undone, ports, run.run_id, step, claim)
    return DONE


def _note_undone(ports: Ports, run_id: str, step: Step, claim: ProcessClaim) -> None:
    """Journal that a step is undone; again where an operator's wish was written meanwhile.

    Raises:
        ElsewhereError: another process has taken the undo over.
        ConflictError: the run was moved meanwhile; to be repeated.
    """
    found, run = load(ports, run_id)
    mine = run.journal.get(step.name)
    if mine is None or mine.undo_claim != claim:
        raise ElsewhereError("undone-elsewhere", f"{step.name} was taken over")
    now = timestamp(ports.clock.now())
    undone = with_entry(run, step.name, mine.evolve(state="undone", error=None, undone_at=now))
    commit_once(ports, [Update(found.path, undone.document(), found.revision)])


def _land_or_give_way(ports: Ports, writes: list[Write]) -> None:
    try:
        commit_once(ports, writes)
    except ConflictError as error:
        raise ElsewhereError(error.code, error.detail) from error


def _end(ports: Ports, runbooks: Runbooks, runbook: Runbook, run_id: str) -> None:
    """Commit together the run's end, its receipt, and an alert where the operator must look."""
    found, run = load(ports, run_id)
    failed_step = run.failed_step or runbook.steps[0].name
    proof, *texts = runbook.refused(ports, run, failed_step)
    event = "undone_for_now" if run.retryable else "undone_for_good"
    writes: list[Write] = [proof, *texts]
    if run.cancellation:
        event = "undone_on_request"
        writes += explained(
            ports,
            "run_cancelled",
            run.account_id,
            run_id,
            run.cancellation.reason,
            named="reason_sha256",
            attempt=run.attempt,
            status="cancelled",
            run_id=run_id,
            operator=run.cancellation.operator,
        )
    told: Alert | None = None
    cause = _alarm(ports, runbook, run, failed_step)
    if cause:
        raised, told = alert(
            ports,
            "critical",
            cause,
            run.account_id,
            run_id,
            f"{failed_step}: {run.error_code}: {run.error_detail}",
            attempt=run.attempt,
            cause_receipt=proof,
        )
        writes += raised
    ended = run.evolve(
        state=advance(RUN, run.state, event), receipt_id=proof.data["receipt_id"], retry_at=None
    )
    moved = Update(found.path, ended.document(), found.revision)
    end(ports, runbooks, ended, [moved, *writes], told)
    _LOG.warning(
        "run %s of %s ended %s: %s: %s",
        run_id,
        run.account_id,
        ended.state,
        failed_step,
        run.error_code,
    )


def _alarm(ports: Ports, runbook: Runbook, run: Run, failed_step: str) -> str | None:
    """The cause of an alert, where a person should know that the run failed."""
    if not run.retryable:
        return None
    if run.error_code == FAULT_OF_OURS:
        return "run_fault"
    known = {step.name: step.alarm for step in runbook.steps}
    if failed_step in run.journal and known.get(failed_step):
        return known[failed_step]
    if run.trigger is not Trigger.WEBHOOK:
        return "run_failed"  # nobody delivers it again
    # By then the ingress has answered 202: the marketplace will not deliver the event again.
    waited_ms = elapsed_ms(run.started_at, ports.clock.now())
    return "run_failed" if waited_ms > ports.times.webhook_wait_s * 1000 else None


def _put_off(ports: Ports, run_id: str, error: Exception) -> Outcome:
    """Have the undo tried again later; after many failures park the run, and raise an alarm.

    FAILED where the run was parked now.

    Raises:
        ConflictError: the run was moved under this; to be repeated.
    """
    found, run = load(ports, run_id)
    if run.state is not RunState.COMPENSATING:
        return put_off(f"the run is {run.state}")
    attempts, words = run.undo_attempts + 1, f"{error_code(error)}: {public_detail(error)}"[:1024]
    freed = {
        name: entry.evolve(undo_claim=None, error=words)
        if entry.undo_claim and is_same_process(ports, entry.undo_claim) and entry.state != "undone"
        else entry
        for name, entry in run.journal.items()
    }
    off = run.evolve(journal=freed, undo_attempts=attempts, retry_at=later(ports, attempts))
    if attempts < PARK_AFTER:
        commit_once(ports, [Update(found.path, off.document(), found.revision)])
        return put_off(f"{error_code(error)}; it is tried again at {off.retry_at}")
    parked_for = later(
        ports, attempts - PARK_AFTER + 1, first_s=_PARKED_FIRST_S, longest_s=_PARKED_LONGEST_S
    )
    parked = off.evolve(state=advance(RUN, off.state, "park"), retry_at=parked_for)
    moved = Update(found.path, parked.document(), found.revision)
    if attempts > PARK_AFTER:  # receipted and alerted already
        commit_once(ports, [moved])
        return put_off(f"{error_code(error)}; the run is parked until {parked_for}")
    proofs = explained(
        ports,
        "compensation_failed",
        run.account_id,
        run_id,
        public_detail(error),
        attempt=run.attempt,
        status="failed",
        run_id=run_id,
        failed_step=run.failed_step or "unknown",
        error_code=error_code(error),
    )
    raised, told = alert(
        ports,
        "critical",
        "compensation_failed",
        run.account_id,
        run_id,
        words,
        attempt=run.attempt,
        cause_receipt=proofs[0],
    )
    commit_once(ports, [moved, *proofs, *raised])
    ports.alerts.send(told)
    return step_failed(error, code_of(error))
