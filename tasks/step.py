"""How every step of every run goes. START READING HERE.

A runbook is a list of steps; a run is one execution of it, kept in one document whose journal says
what was done and how to undo it. ``run_step`` carries out one step:

    (1) replay   a step that is done is not done again; a run that ended is left alone
    (2) load     a run whose definition changed, or whose time is up, is compensated
    (3) intent   what this step is about to create is written, and so how to undo it, before acting
    (4) act      idempotent; a second process at the same step gives way to a living one
    (5) commit   the result; with the last step also the run's end and its receipt
    (6) next     Celery's chain carries the run's id on; the reaper does when Celery lost it

A failure turns the run to ``compensating``: the undos run in reverse, each journalled, undoing only
what this run created; then one commit of the run's end and its receipt. Nothing here hangs on a
callback of Celery's. Runs of one account take turns by a claimed document.
"""

import logging

from governor import records
from governor.actions import error_code
from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError
from governor.fsm import RUN, RunState, advance
from governor.records import JournalEntry, Run, instant
from ports import Ports
from ports.documents import Create, Document, Update, Write
from tasks.compensate import compensate
from tasks.emit import land
from tasks.journal import end, is_done, is_own, load, may_take, with_entry
from tasks.runbook import ElsewhereError, Result, Runbook, Step

_LOG = logging.getLogger("ggen.runs")


def run_step(ports: Ports, runbook: Runbook, step_name: str, run_id: str) -> None:
    """Carry out one step of a run, or find out that there is nothing to do.

    Raises:
        OutageError: the store does not answer, so nothing could be said of the run; the reaper
            takes it up again.
    """
    step = next(s for s in runbook.steps if s.name == step_name)
    # (1) replay, (2) load
    found = ports.documents.get(records.run_path(run_id))
    if found is None:
        return
    run = Run.model_validate(found.data)
    if run.state is RunState.COMPENSATING:
        compensate(ports, runbook, run_id)
    if run.state is RunState.COMPLETE and step is runbook.steps[-1]:
        runbook.ended(ports, run)  # whoever ended it may have died before it came to this
    if run.state not in (RunState.PENDING, RunState.RUNNING) or is_done(run, step_name):
        return
    if not _is_next(runbook, run, step_name) or not _may_act(ports, run, step_name):
        return
    try:
        _check(ports, runbook, run)
        # (3) intent
        run = _begin(ports, found, run, step)
        # (4) act
        result = step.act(ports, run)
        # (5) commit
        _finish(ports, runbook, run, step, result)
    except ElsewhereError as error:
        _LOG.info("run %s: %s goes on elsewhere (%s)", run_id, step_name, error)
    except Exception as error:  # whatever a step raises, its run must not be stuck
        fail(ports, runbook, run, step_name, error)


def fail(ports: Ports, runbook: Runbook, known: Run, step_name: str, error: Exception) -> None:
    """Turn a run to compensating because of ``error``, and undo what it did.

    ``known`` is the run as this process last saw it; whoever lost the step meanwhile has no say.
    """
    run_id = known.run_id
    if not isinstance(error, GovernorError):
        _LOG.error("run %s failed in %s", run_id, step_name, exc_info=error)
    found, run = load(ports, run_id)
    is_open = run.state in (RunState.PENDING, RunState.RUNNING)
    entry = run.journal.get(step_name)
    is_ours = entry == known.journal.get(step_name) or (entry and is_own(ports, entry))
    if not is_open or run.attempt != known.attempt or not is_ours:
        return
    failed = run.evolve(
        state=advance(RUN, run.state, "fail"),
        error_code=error_code(error),
        error_detail=str(error)[:1024],
        failed_step=step_name,
        retryable=not isinstance(error, (InputError, DeniedError)),
    )
    try:
        land(ports, [Update(found.path, failed.document(), found.revision)])
    except ConflictError:
        return  # another process moved it, and goes on from there
    compensate(ports, runbook, run_id)


def _check(ports: Ports, runbook: Runbook, run: Run) -> None:
    if run.definition_sha256 != runbook.definition_sha256():
        raise OutageError("definition-changed", f"{runbook.name} was upgraded while this run ran")
    if ports.clock.now() > instant(run.deadline_at):
        raise OutageError("run-deadline", "the run did not end in time")


def _begin(ports: Ports, found: Document, run: Run, step: Step) -> Run:
    """Journal the intent, and with the first one take the account's turn."""
    entry = JournalEntry(
        state="intent",
        created=_planned(ports, run, step),
        claim=ports.processes.claim(ports.clock.now()),
    )
    begun = with_entry(run, step.name, entry)
    writes: list[Write] = []
    if run.state is RunState.PENDING:
        begun = begun.evolve(state=advance(RUN, run.state, "claim"))
        writes.append(Create(records.turn_path(run.account_id), {"run_id": run.run_id}))
    try:
        land(ports, [Update(found.path, begun.document(), found.revision), *writes])
    except ConflictError as error:
        raise ElsewhereError(error.code, error.detail) from error
    return begun


def _finish(ports: Ports, runbook: Runbook, run: Run, step: Step, result: Result) -> None:
    found, current = load(ports, run.run_id)
    if current.journal.get(step.name) != run.journal[step.name]:
        raise ElsewhereError("fenced", f"step {step.name} was taken over")
    entry = run.journal[step.name].evolve(state="done", result=dict(result.facts))
    done = with_entry(current, step.name, entry)
    writes: list[Write] = [*result.writes]
    is_last = step is runbook.steps[-1]
    if is_last and not result.ends_with:
        more, proof = runbook.succeeded(ports, done)
        writes += [*more, proof]
        done = done.evolve(receipt_id=proof.data["receipt_id"])
    if result.ends_with:
        done = done.evolve(receipt_id=result.ends_with)
    if not is_last and not result.ends_with:
        land(ports, [Update(found.path, done.document(), found.revision), *writes])
        return
    done = done.evolve(state=advance(RUN, done.state, "finish"))
    end(ports, runbook, done, [Update(found.path, done.document(), found.revision), *writes])


def _planned(ports: Ports, run: Run, step: Step) -> dict[str, bool]:
    """What this run creates by the step; what an earlier attempt at it planned still counts."""
    earlier = run.journal.get(step.name)
    looked = step.look(ports, run)
    return {k: v or bool(earlier and earlier.created.get(k)) for k, v in looked.items()}


def _may_act(ports: Ports, run: Run, step_name: str) -> bool:
    """Whether the step is not under way in a process that still lives."""
    entry = run.journal.get(step_name)
    return entry is None or entry.claim is None or may_take(ports, entry.claim)


def _is_next(runbook: Runbook, run: Run, step_name: str) -> bool:
    """Whether every step before this one is done: a chain goes on even where a step gave way."""
    names = [s.name for s in runbook.steps]
    return all(is_done(run, name) for name in names[: names.index(step_name)])
