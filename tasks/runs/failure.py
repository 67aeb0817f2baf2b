"""What a failed step means for its run, by the family of its error.

======================  ================================================================
family                  consequence
======================  ================================================================
Outage                  tried again here for a second, then later and later, with jitter,
                        until the run's deadline; then undone, to be delivered again
Conflict                looked at and tried again at once, three times; then undone,
                        to be delivered again
Policy (ours to mend)   undone, to be delivered again
Input, Denied           undone, and not retried: a redelivery gets the same answer
anything else           a fault of ours: undone, to be delivered again, and an alert
======================  ================================================================

A run past its runbook's ``no_way_back`` is never undone: whatever fails is tried again.
"""

import logging
from collections.abc import Callable
from typing import Literal, TypeVar

import tenacity

from governor.actions import error_code
from governor.errors import (
    ConflictError,
    DeniedError,
    GovernorError,
    InputError,
    OutageError,
    PolicyError,
    is_ours_to_mend,
    public_detail,
)
from governor.fsm import RUN, RUN_ACTING, RunState, advance
from governor.runs import JournalEntry, Run
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Document, Update
from tasks.outcomes import DONE, Outcome, put_off, step_failed
from tasks.receipts import troubles
from tasks.receipts.commit import commit_once
from tasks.runs.definition import ElsewhereError, Runbook, Step, is_done
from tasks.runs.journal import (
    claimed,
    deadline,
    is_own,
    later,
    load,
    waits_its_turn,
    with_entry,
)

_LOG = logging.getLogger("ggen.runs")
_T = TypeVar("_T")
_Stands = Literal["waiting", "intent"]
FAULT_OF_OURS = "internal-error"
"""The code of an error that is in none of the families."""

PATIENCE_S = 1.0
"""How long a step is tried again in its own process before its run is put off."""

STUCK_AFTER_S = 300
"""How long a step may lack a store, in a run that cannot be undone, before the operator hears."""

_HELD_LONGEST_S = 30
_CONFLICTS = 3


def with_retries(effect: Callable[..., _T], *arguments: object) -> _T:
    """``effect(*arguments)``, which is idempotent, tried again while its failure may pass soon.

    Raises:
        whatever it raised last.
    """
    try:
        return effect(*arguments)  # a tenth of a millisecond less where it does not fail
    except (OutageError, ConflictError) as error:
        if not _may_pass(error):
            raise
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_may_pass),
        stop=_is_enough,
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.5),
        reraise=True,
    )
    return waiting(effect, *arguments)


def _may_pass(error: BaseException) -> bool:
    if isinstance(error, (PolicyError, ElsewhereError)):
        return False
    return isinstance(error, (OutageError, ConflictError))


def _is_enough(state: tenacity.RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, ConflictError):
        return state.attempt_number >= _CONFLICTS - 1  # one was made before
    return (state.seconds_since_start or 0) >= PATIENCE_S


def reason_to_stop(ports: Ports, runbook: Runbook, run: Run) -> GovernorError | None:
    """Why a run must not go on, if so."""
    if runbook.only_goes_forward(run):
        return None
    if run.cancellation:
        return DeniedError("run-cancelled", "an operator cancelled the run")
    has_begun = run.state is not RunState.PENDING
    if has_begun and run.definition_sha256 != runbook.definition_sha256():
        return ConflictError("definition-changed", f"{runbook.name} was upgraded under this run")
    if ports.clock.now() > deadline(ports, run) and not waits_its_turn(run):
        return ConflictError("run-deadline", f"the run did not end in time{_last_error(run)}")
    return None


def _last_error(run: Run) -> str:
    told = [entry.error for entry in run.journal.values() if entry.error]
    return f"; last: {told[-1]}" if told else ""


def give_up_or_put_off(
    ports: Ports,
    runbook: Runbook,
    known: Run,
    step: Step,
    error: Exception,
    waits_still: bool = False,
) -> Outcome:
    """Store what a step's failure means: FAILED where the run is to be undone now.

    ``known`` is the run as this process last saw it. A process that lost the step meanwhile
    changes nothing. ``waits_still``: the step has not begun to act.

    Raises:
        ConflictError: the run was moved under this; to be repeated.
        OutageError: the store does not answer; it may have been stored.
    """
    _tell_the_operator(ports, known, step, error)
    found, run = load(ports, known.run_id)
    entry = run.journal.get(step.name)
    is_ours = entry == known.journal.get(step.name) or (entry and is_own(ports, entry))
    if run.state is RunState.COMPENSATING and run.attempt == known.attempt:
        return step_failed(error, run.error_code or code_of(error))
    if run.state not in RUN_ACTING or run.attempt != known.attempt or not is_ours:
        return put_off("it goes on elsewhere")
    stop = reason_to_stop(ports, runbook, run)
    if stop is None and is_done(run, step.name):
        return DONE  # its commit had landed after all
    state: _Stands = "waiting" if waits_still else "intent"
    if runbook.only_goes_forward(run):
        return _hold_on(ports, runbook, found, run, step, error, state)
    if stop is None and _is_outage(error):
        return _put_off(ports, runbook, found, run, step, error, state)
    if run.cancellation and stop:
        error = stop
    ended = run.evolve(
        state=advance(RUN, run.state, "fail"),
        error_code=code_of(error),
        error_detail=public_detail(error)[:1024],
        failed_step=step.name,
        retryable=not isinstance(error, (InputError, DeniedError)),
        retry_at=None,
    )
    commit_once(ports, [Update(found.path, ended.document(), found.revision)])
    return step_failed(error, code_of(error))


def code_of(error: Exception) -> str:
    """The code of an error, as receipts name it."""
    return error_code(error) if isinstance(error, GovernorError) else FAULT_OF_OURS


def _tell_the_operator(ports: Ports, run: Run, step: Step, error: Exception) -> None:
    """Log the failures that the marketplace does not see and only the operator can mend."""
    if not isinstance(error, GovernorError):
        _LOG.error("run %s failed in %s", run.run_id, step.name, exc_info=error)
    elif is_ours_to_mend(error):
        _LOG.error("run %s failed in %s: %s", run.run_id, step.name, error)
    if isinstance(error, PolicyError):
        sku_id, plan_type = (str(run.inputs.get(each, "")) for each in ("sku_id", "plan_type"))
        troubles.policy_unusable(ports, error, sku_id, plan_type)


def _is_outage(error: Exception) -> bool:
    return isinstance(error, OutageError) and not isinstance(error, PolicyError)


def _put_off(
    ports: Ports,
    runbook: Runbook,
    found: Document,
    run: Run,
    step: Step,
    error: Exception,
    state: _Stands,
) -> Outcome:
    """Have the reaper try the step again, later each time, but not after the run's deadline."""
    told = f"{error_code(error)}: {public_detail(error)}"[:1024]
    if run.state is RunState.PENDING and not run.has_turn:
        return put_off(error_code(error))  # it never began: the reaper repeats its message
    begun = claimed(ports, runbook, run)
    entry = run.journal.get(step.name) or JournalEntry(state="intent")
    attempts = entry.attempts + 1
    freed = entry.evolve(state=state, claim=None, attempts=attempts, error=told)
    retry_at = min(later(ports, attempts), begun.deadline_at)
    _LOG.warning("run %s: %s is tried again at %s (%s)", run.run_id, step.name, retry_at, error)
    off = with_entry(begun, step.name, freed).evolve(retry_at=retry_at)
    commit_once(ports, [Update(found.path, off.document(), found.revision)])
    return put_off(f"{error_code(error)}; it is tried again at {retry_at}")


def _hold_on(
    ports: Ports,
    runbook: Runbook,
    found: Document,
    run: Run,
    step: Step,
    error: Exception,
    state: _Stands,
) -> Outcome:
    """Have a step tried again whose run cannot be undone, and tell the operator if that lasts.

    The operator hears of an outage after ``STUCK_AFTER_S``, and of anything else at once.
    """
    now = ports.clock.now()
    entry = run.journal.get(step.name) or JournalEntry(state="intent")
    since = entry.failing_since or timestamp(now)
    may_pass = _is_outage(error) and elapsed_ms(since, now) < STUCK_AFTER_S * 1000
    writes: list[Create] = []
    told: Alert | None = None
    if runbook.stuck and not entry.is_told and not may_pass:
        writes, told = runbook.stuck(ports, run, step.name, code_of(error), public_detail(error))
    attempts = entry.attempts + 1
    held = entry.evolve(
        state=state,
        claim=None,
        attempts=attempts,
        error=f"{code_of(error)}: {public_detail(error)}"[:1024],
        failing_since=since,
        is_told=entry.is_told or told is not None,
    )
    retry_at = later(ports, attempts, longest_s=_HELD_LONGEST_S)
    off = with_entry(run, step.name, held).evolve(retry_at=retry_at)
    commit_once(ports, [Update(found.path, off.document(), found.revision), *writes])
    if told:
        ports.alerts.send(told)
    _LOG.warning("run %s: %s is tried again at %s (%s)", run.run_id, step.name, retry_at, error)
    return put_off(f"{code_of(error)}; it is tried again at {retry_at}")
