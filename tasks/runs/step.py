"""How every step of every run goes. START READING HERE.

A runbook is a list of steps; a run is one execution of it, kept in one document whose journal says
what was done and how to undo it. The steps of a run travel as one Celery chain, one task a step;
each task names the run, and ``run_link`` decides from the journal what there is to do:

    (1) load     a run that was cancelled, redefined, or whose time is up is undone
    (2) replay   a step that is done is not done again; one whose turn has not come is put off
    (3) wait     a step that waits leaves the worker; the reaper looks until it may act (waits.py)
    (4) intent   what this step is about to create is written, and so how to undo it, before acting
    (5) act      idempotent; a second process at the same step gives way to a living one
    (6) commit   the result; with the last step also the run's end and its receipt
    (7) next     Celery publishes the next link of the chain; where that is lost, the reaper does

A failure is put off or ends the run, by its family (``failure.py``): then a chain of undos goes in
reverse, each journalled, undoing only what this run created, and its last task commits the run's
end and its receipt (``compensate.py``). The chain carries, the journal decides: a message that is
lost, doubled or late changes nothing. Runs of one turn go one at a time, by a claimed document.
"""

import contextlib
import logging

from governor import paths
from governor.errors import ConflictError, OutageError
from governor.fsm import RUN, RUN_ACTING, RUN_OPEN, RunState, advance
from governor.quota import Verdict
from governor.runs import Effect, JournalEntry, Run
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Document, Write
from tasks.outcomes import (
    ALREADY_DONE,
    DONE,
    RUN_ENDED,
    Ending,
    Outcome,
    StepFailed,
    failed,
    put_off,
)
from tasks.receipts.commit import commit_once
from tasks.receipts.fence import or_kill_self
from tasks.runs import spread, waits
from tasks.runs.compensate import undo_link
from tasks.runs.definition import ElsewhereError, Result, Runbook, Runbooks, Step, is_done
from tasks.runs.failure import give_up_or_put_off, reason_to_stop, with_retries
from tasks.runs.fenced import Fenced
from tasks.runs.journal import (
    claim_from,
    claimed,
    end,
    is_due,
    is_free,
    is_next_in_turn,
    load,
    send,
    waits_its_turn,
    with_entry,
)

_LOG = logging.getLogger("ggen.runs")
_ACTS = 3


def run_link(ports: Ports, runbooks: Runbooks, task: str, run_id: str) -> Outcome:
    """Carry out one task of a run's chain: a step, an undo, or the end of a run that was undone.

    Raises:
        OutageError: the store does not answer, so nothing could be said of the run; the reaper
            sends its chain again.
    """
    found = ports.documents.get(paths.run_path(run_id))
    if found is None:
        return put_off("there is no such run")
    run = Run.stored(found.data)
    runbook = runbooks.get(run.runbook)
    if runbook is None:
        return put_off(f"this version knows no runbook {run.runbook}")
    if run.state in RUN_OPEN and not _is_quiet(runbook, run, task):
        standing = ports.lease.standing(run.account_id)
        if standing is not Verdict.ADMITTED:
            _LOG.warning("run %s rests: %s; the reaper has it go on", run_id, standing)
            return put_off(f"nothing is admitted ({standing})")
    if task in (runbook.undone_name, *(step.undo_name for step in runbook.steps)):
        return undo_link(ports, runbooks, runbook, task, run_id)
    if task not in (step.name for step in runbook.steps):
        return put_off("this version of the runbook has no such step")
    return _run_step(ports, runbooks, runbook.step(task), found, run)


def _is_quiet(runbook: Runbook, run: Run, task: str) -> bool:
    """Whether a task changes its run's journal alone: it need not ask whether anything is admitted.

    The first step asks, since a run begins with it, and the last one, which commits its receipt.
    """
    between = runbook.steps[:-1] if run.state is RunState.RUNNING else ()
    return any(step.name == task and not step.has_effects for step in between)


def _run_step(ports: Ports, runbooks: Runbooks, step: Step, found: Document, run: Run) -> Outcome:
    runbook = runbooks[run.runbook]
    # (2) replay
    if told := _not_now(ports, runbooks, run, step):
        return told
    at = Fenced.at(found, run, step.name)
    try:
        return _act(ports, runbooks, at, step)
    except ElsewhereError as error:
        _LOG.info("run %s: %s goes on elsewhere (%s)", run.run_id, step.name, error)
        return put_off(f"it goes on elsewhere ({error.code})")
    except Exception as error:  # whatever a step raises, its run must not be stuck
        failure = error
    waits_still = step.may_wait and not at.has_begun
    told = or_kill_self(
        lambda: with_retries(give_up_or_put_off, ports, runbook, at.run, step, failure, waits_still)
    )
    if told.ending is Ending.FAILED:
        with contextlib.suppress(OutageError):  # the reaper has it undone
            send(runbooks, load(ports, run.run_id)[1])
    return told


def _not_now(ports: Ports, runbooks: Runbooks, run: Run, step: Step) -> Outcome | None:
    """What a link says that has nothing to do, or whose turn has not come."""
    runbook = runbooks[run.runbook]
    if run.state not in RUN_OPEN and step is runbook.steps[-1]:
        with contextlib.suppress(OutageError):
            runbook.ended(ports, run)  # the process that ended it may have died before this
    is_unended = step is runbook.steps[-1] and run.state in RUN_ACTING  # by another definition
    if is_done(run, step.name) and not is_unended:
        return ALREADY_DONE
    if run.state is RunState.COMPLETE:
        return RUN_ENDED
    if run.state not in RUN_OPEN:
        return failed(StepFailed, f"the run is {run.state}")
    if waits_its_turn(run) and not run.cancellation and not is_next_in_turn(ports, run, runbooks):
        return put_off("another run waits for its turn before this one")
    reasons = {
        f"the run is {run.state}": run.state not in RUN_ACTING,
        f"until {run.retry_at}": not is_due(ports, run),
        "another process is at this run": not is_free(ports, run),
    }
    return next((put_off(why) for why, holds in reasons.items() if holds), None)


def _act(ports: Ports, runbooks: Runbooks, at: Fenced, step: Step) -> Outcome:
    runbook = runbooks[at.run.runbook]
    # (1) load
    stop = reason_to_stop(ports, runbook, at.run)
    if stop is not None:
        raise stop
    if not runbook.is_next(at.run, step):
        return put_off("a step before it is not done")
    # (3) wait
    if step.may_wait and not at.has_begun:
        try:
            if wait := with_retries(waits.of, ports, step, at.run):
                return waits.begin(ports, runbook, at, step, wait)
        except OutageError as error:
            return put_off(error.code)  # it has not begun, and is asked again
    # (4) intent
    _begin(ports, runbook, at, step)
    # (5) act
    if step.chunk is None:
        return _act_and_commit(ports, runbooks, at, step)
    if spread.Through(ports, runbooks, at, step.chunk).go_on():
        return with_retries(_finish, ports, runbooks, at, step, Result())
    return put_off(f"{at.entry.members} are done; it goes on")


def _act_and_commit(ports: Ports, runbooks: Runbooks, at: Fenced, step: Step) -> Outcome:
    """Act, and (6) commit; once more where another run changed a document that this one changes.

    A policy that comes into force changes entitlements whose account's turn is another run's.
    """
    for left in reversed(range(_ACTS)):
        result = with_retries(step.act, ports, at.run)
        try:
            return with_retries(_finish, ports, runbooks, at, step, result)
        except ElsewhereError:
            raise
        except ConflictError:
            if not left:
                raise
    raise AssertionError("the last one returns or raises")


def _begin(ports: Ports, runbook: Runbook, at: Fenced, step: Step) -> None:
    """Journal the intent; the first step takes the turn and starts the run's time.

    A step without effects leaves nothing to undo, so that its result alone is journalled.
    """
    waits.tell_the_end(ports, at.run, step, at.stored)
    at.has_begun = True
    needs_turn = at.run.state is RunState.PENDING and not at.run.has_turn
    begun = claimed(ports, runbook, at.run)
    is_new = at.stored is None or at.stored.state != "intent"
    # One that an earlier release began has no time of its beginning, and gets none.
    began_at = at.entry.began_at or (timestamp(ports.clock.now()) if is_new else None)
    entry = at.entry.evolve(state="intent", began_at=began_at)
    if not step.has_effects and not needs_turn:
        at.run, at.entry = begun, entry
        return
    entry = entry.evolve(
        effects=_meant(with_retries(step.look, ports, at.run), at.stored),
        claim=claim_from(ports, entry.claim, step.time_limit_s),
    )
    writes: list[Write] = []
    if needs_turn:
        begun = begun.evolve(has_turn=True)
        writes.append(Create(paths.turn_path(begun.turn), {"run_id": begun.run_id}))
    at.save(ports, begun, entry, writes)


def _refresh(ports: Ports, runbook: Runbook, at: Fenced) -> bool:
    """Have the run as the store has it; whether the step's last commit has landed after all.

    Raises:
        ElsewhereError: another process has taken the step over.
        GovernorError: why the run must not go on, if an operator wishes so.
    """
    if at.is_current:
        at.is_current = False
        return False
    found, current = load(ports, at.run.run_id)
    if at.done is not None and current.journal.get(at.step_name) == at.done:
        if current.state is RunState.COMPLETE:
            runbook.ended(ports, current)
            ports.announcements.announce(current.run_id)
        return True
    if current.state not in RUN_ACTING or current.journal.get(at.step_name) != at.stored:
        raise ElsewhereError("fenced", f"step {at.step_name} was taken over")
    if current.cancellation:
        stop = reason_to_stop(ports, runbook, current)
        if stop is not None:
            raise stop
    at.run, at.revision = claimed(ports, runbook, current), found.revision
    return False


def _finish(ports: Ports, runbooks: Runbooks, at: Fenced, step: Step, result: Result) -> Outcome:
    runbook = runbooks[at.run.runbook]
    if _refresh(ports, runbook, at):
        return RUN_ENDED if result.ends_with else DONE
    at.done = _done(ports, at.entry, result)
    done = with_entry(at.run, step.name, at.done)
    started = [Create(paths.run_path(child.run_id), child.document()) for child in result.children]
    writes: list[Write] = [*result.writes, *started]
    if step is not runbook.steps[-1] and result.ends_with is None:
        commit_once(ports, [at.update(done), *writes])
        for child in result.children:
            send(runbooks, child)
        return DONE
    done = done.evolve(state=advance(RUN, done.state, "finish"), receipt_id=result.ends_with)
    if result.ends_with is None:
        more, proof = runbook.succeeded(ports, done)
        writes += [*more, proof]
        done = done.evolve(receipt_id=proof.data["receipt_id"])
    end(ports, runbooks, done, [at.update(done), *writes])
    return RUN_ENDED if result.ends_with else DONE


def _done(ports: Ports, entry: JournalEntry, result: Result) -> JournalEntry:
    effects = {resource: effect.done for resource, effect in entry.effects.items()}
    facts = result.facts.document() if result.facts else {}
    done_at = timestamp(ports.clock.now())
    return entry.evolve(state="done", effects=effects, result=facts, error=None, done_at=done_at)


def _meant(looked: dict[str, Effect], earlier: JournalEntry | None) -> dict[str, Effect]:
    """What this run does by the step: what an earlier attempt at it meant to create is its own."""
    return {
        resource: Effect.CREATE if earlier and earlier.made(resource) else effect
        for resource, effect in looked.items()
    }
