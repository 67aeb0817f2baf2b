"""How every step of every run goes. START READING HERE.

A runbook is a list of steps; a run is one execution of it, kept in one document whose journal says
what was done and how to undo it. A message names a run; ``carry_on`` takes that run as far as it
goes, step by step, and ``run_step`` carries out one step:

    (1) load     a run that was cancelled, redefined, or whose time is up is compensated
    (2) replay   a step that is done is not done again; a run that ended is left alone
    (3) intent   what this step is about to create is written, and so how to undo it, before acting
    (4) act      idempotent; a second process at the same step gives way to a living one
    (5) commit   the result; with the last step also the run's end and its receipt
    (6) next     this process goes on while its message is young; then it hands over by another

A failure is put off or ends the run, by its family (``failure.py``): then the undos run in reverse,
each journalled, undoing only what this run created (``compensate.py``), and one commit holds the
run's end and its receipt. Nothing here hangs on a callback of Celery's: a message that is lost,
doubled or late changes nothing, for the reaper repeats it and the journal decides.
Runs of one account take turns by a claimed document.
"""

import contextlib
import logging
from datetime import timedelta

from governor import paths
from governor.errors import ConflictError, OutageError
from governor.fsm import RUN, RUN_ACTING, RUN_OPEN, RUN_UNDOING, RunState, advance
from governor.quota import Verdict
from governor.runs import Effect, JournalEntry, Run
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Document, Update, Write
from tasks import publish
from tasks.receipts.commit import commit_once
from tasks.receipts.fence import or_kill_self
from tasks.runs.compensate import compensate
from tasks.runs.definition import ElsewhereError, Result, Runbook, Step
from tasks.runs.failure import give_up_or_put_off, reason_to_stop, with_retries
from tasks.runs.journal import (
    HAND_OVER_S,
    claim_from,
    end,
    is_done,
    is_due,
    is_free,
    load,
    with_entry,
)

_LOG = logging.getLogger("ggen.runs")


def carry_on(ports: Ports, runbook: Runbook, run_id: str) -> None:
    """Take a run as far as it goes; give way to another process that is at it.

    Raises:
        OutageError: the store does not answer, so nothing could be said of the run; the reaper
            takes it up again.
    """
    began_s = ports.clock.monotonic_s()
    while True:
        found = ports.documents.get(paths.run_path(run_id))
        if found is None:
            return
        run = Run.stored(found.data)
        if run.state not in RUN_OPEN:
            with contextlib.suppress(OutageError):
                runbook.ended(ports, run)  # the process that ended it may have died before this
            return
        standing = ports.lease.standing(run.account_id)
        if standing is not Verdict.ADMITTED:
            _LOG.warning("run %s rests: %s; the reaper has it go on", run_id, standing)
            return
        if run.state in RUN_UNDOING:
            compensate(ports, runbook, run_id)
            return
        if ports.clock.monotonic_s() - began_s > HAND_OVER_S:
            publish.run(run)
            return
        step = next((s for s in runbook.steps if not is_done(run, s.name)), runbook.steps[-1])
        if not run_step(ports, runbook, step.name, run_id) or step is runbook.steps[-1]:
            return


def run_step(ports: Ports, runbook: Runbook, step_name: str, run_id: str) -> bool:
    """Carry out one step of a run, or find out that there is nothing to do; whether it is done.

    Raises:
        OutageError: as for ``carry_on``.
    """
    step = runbook.step(step_name)
    # (1) load
    found, run = load(ports, run_id)
    if run.state not in RUN_ACTING:
        return is_done(run, step_name)
    if not is_due(ports, run) or not is_free(ports, run):
        return False
    try:
        stop = reason_to_stop(ports, runbook, run)
        if stop is not None:
            raise stop
        # (2) replay
        if is_done(run, step_name) or not _is_next(runbook, run, step):
            return is_done(run, step_name)
        # (3) intent
        run = _begin(ports, runbook, found, run, step)
        # (4) act
        result = with_retries(step.act, ports, run)
        # (5) commit; again where an operator's wish was written meanwhile
        with_retries(_finish, ports, runbook, run, step, result)
        return True
    except ElsewhereError as error:
        _LOG.info("run %s: %s goes on elsewhere (%s)", run_id, step_name, error)
        return False
    except Exception as error:  # whatever a step raises, its run must not be stuck
        failure = error
    if or_kill_self(lambda: with_retries(give_up_or_put_off, ports, runbook, run, step, failure)):
        compensate(ports, runbook, run_id)
    return False


def _begin(ports: Ports, runbook: Runbook, found: Document, run: Run, step: Step) -> Run:
    """Journal the intent; the first one takes the account's turn and starts the run's time."""
    earlier = run.journal.get(step.name)
    entry = JournalEntry(
        state="intent",
        effects=_meant(with_retries(step.look, ports, run), earlier),
        claim=claim_from(ports, earlier.claim if earlier else None),
        attempts=earlier.attempts if earlier else 0,
    )
    begun = with_entry(run, step.name, entry).evolve(retry_at=None)
    writes: list[Write] = []
    if run.state is RunState.PENDING:
        time_left = timedelta(seconds=ports.times.run_deadline_s)
        begun = begun.evolve(
            state=advance(RUN, run.state, "claim"),
            definition_sha256=runbook.definition_sha256(),
            deadline_at=timestamp(ports.clock.now() + time_left),
        )
        writes.append(Create(paths.turn_path(run.account_id), {"run_id": run.run_id}))
    try:
        commit_once(ports, [Update(found.path, begun.document(), found.revision), *writes])
    except ConflictError as error:
        raise ElsewhereError(error.code, error.detail) from error
    return begun


def _finish(ports: Ports, runbook: Runbook, run: Run, step: Step, result: Result) -> None:
    found, current = load(ports, run.run_id)
    if current.journal.get(step.name) != run.journal[step.name]:
        raise ElsewhereError("fenced", f"step {step.name} was taken over")
    done = with_entry(current, step.name, _done(run.journal[step.name], result))
    is_last = step is runbook.steps[-1] or result.ends_with is not None
    if not is_last:
        commit_once(ports, [Update(found.path, done.document(), found.revision), *result.writes])
        return
    if current.cancellation:
        stop = reason_to_stop(ports, runbook, current)
        if stop is not None:
            raise stop
    writes = [*result.writes]
    done = done.evolve(state=advance(RUN, done.state, "finish"), receipt_id=result.ends_with)
    if result.ends_with is None:
        more, proof = runbook.succeeded(ports, done)
        writes += [*more, proof]
        done = done.evolve(receipt_id=proof.data["receipt_id"])
    end(ports, runbook, done, [Update(found.path, done.document(), found.revision), *writes])


def _done(entry: JournalEntry, result: Result) -> JournalEntry:
    effects = {resource: effect.done for resource, effect in entry.effects.items()}
    return entry.evolve(state="done", effects=effects, result=dict(result.facts), error=None)


def _meant(looked: dict[str, Effect], earlier: JournalEntry | None) -> dict[str, Effect]:
    """What this run does by the step: what an earlier attempt at it meant to create is its own."""
    return {
        resource: Effect.CREATE if earlier and earlier.made(resource) else effect
        for resource, effect in looked.items()
    }


def _is_next(runbook: Runbook, run: Run, step: Step) -> bool:
    """Whether every step before this one is done."""
    before = runbook.steps[: runbook.steps.index(step)]
    return all(is_done(run, each.name) for each in before)
