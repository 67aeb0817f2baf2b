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

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery import chain
from celery.exceptions import OperationalError as CeleryUnreachable
from kombu.exceptions import OperationalError as BrokerUnreachable

from governor import records
from governor.actions import error_code
from governor.errors import (
    ConflictError,
    DeniedError,
    GovernorError,
    InputError,
    OutageError,
)
from governor.fsm import RUN, RunState, advance
from governor.records import JournalEntry, ProcessClaim, Run, elapsed_ms, instant
from ports import Ports
from ports.documents import Create, Delete, Document, Update, Where, Write
from tasks.celery import PUBLISH_ONCE, RUNBOOKS, app
from tasks.emit import alert, land, receipt

_LOG = logging.getLogger("ggen.runs")

STEP_MAX_AGE_S = 15
"""After this long another process may take a step over, whatever became of the one that had it."""

OPEN = (RunState.PENDING, RunState.RUNNING, RunState.COMPENSATING)
"""The states a run does not end in."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a step did: facts for later steps, and writes to be committed with its journal entry.

    ``ends_with`` ends the run here, well, with a receipt that exists already.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    writes: Sequence[Write] = ()
    ends_with: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One link of a chain.

    ``look`` says which effects are not there yet, so that this run would create them; ``act``
    brings them about, idempotently; ``undo`` removes what ``entry.created`` says was ours.
    """

    name: str
    look: Callable[[Ports, Run], dict[str, bool]]
    act: Callable[[Ports, Run], Result]
    undo: Callable[[Ports, Run, JournalEntry], None]


@dataclass(frozen=True, slots=True)
class Runbook:
    """A recipe: its steps, the receipts its runs end with, and what follows a run's end.

    ``ended`` only brings Memory up to date; where it fails, admission does so by itself.
    """

    name: str
    steps: tuple[Step, ...]
    succeeded: Callable[[Ports, Run], tuple[Sequence[Write], Create]]
    refused: Callable[[Ports, Run, str], Create]
    ended: Callable[[Ports, Run], None]

    def definition_sha256(self) -> str:
        """Changes when the steps or their order change."""
        return hashlib.sha256("\n".join(s.name for s in self.steps).encode()).hexdigest()


RUNBOOKS_BY_NAME: dict[str, Runbook] = {}


class _ElsewhereError(ConflictError):
    """Another process moved this run, or another run has the account's turn."""


def start(run: Run, runbook: Runbook) -> None:
    """Hand a run's remaining steps to the workers. A lost message is repeated by the reaper."""
    left = [s.name for s in runbook.steps if not _is_done(run, s.name)]
    kwargs = {"run_id": run.run_id, "account_id": run.account_id}
    links = [app.signature(name, kwargs=kwargs, immutable=True, queue=RUNBOOKS) for name in left]
    try:
        chain(*links).apply_async(retry_policy=PUBLISH_ONCE)
    except (CeleryUnreachable, BrokerUnreachable, OSError) as error:
        _LOG.warning("run %s waits for the reaper: no broker (%s)", run.run_id, error)


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
    if run.state not in (RunState.PENDING, RunState.RUNNING) or _is_done(run, step_name):
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
    except _ElsewhereError as error:
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
    found, run = _load(ports, run_id)
    is_open = run.state in (RunState.PENDING, RunState.RUNNING)
    entry = run.journal.get(step_name)
    is_ours = entry == known.journal.get(step_name) or (entry and _is_own(ports, entry))
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
        found, run = _load(ports, run_id)
        if run.state is not RunState.COMPENSATING:
            return
        entry = run.journal.get(step.name)
        if entry is None or entry.state == "undone":
            continue
        if entry.undo_claim and not _may_take(ports, entry.undo_claim):
            raise _ElsewhereError("undone-elsewhere", f"{step.name} is being undone")
        # Claimed before it acts: the run cannot end, nor another begin, while an undo is at work.
        claim = ports.processes.claim(ports.clock.now())
        claimed = _journal(run, step.name, entry.evolve(undo_claim=claim))
        land(ports, [Update(found.path, claimed.document(), found.revision)])
        step.undo(ports, run, entry)
        found, run = _load(ports, run_id)
        if run.journal[step.name].undo_claim != claim:
            raise _ElsewhereError("undone-elsewhere", f"{step.name} was taken over")
        undone = _journal(run, step.name, entry.evolve(state="undone"))
        land(ports, [Update(found.path, undone.document(), found.revision)])
    found, run = _load(ports, run_id)
    if run.state is not RunState.COMPENSATING:
        return
    proof = runbook.refused(ports, run, run.failed_step or runbook.steps[0].name)
    ended = run.evolve(
        state=advance(RUN, run.state, "undone_for_now" if run.retryable else "undone_for_good"),
        receipt_id=proof.data["receipt_id"],
    )
    update = Update(found.path, ended.document(), found.revision)
    _end(ports, runbook, ended, [update, proof])


def _tell_of_failed_undo(ports: Ports, run_id: str, error: Exception) -> None:
    """Receipt and alarm an undo that failed, once a run's attempt; the reaper tries it again."""
    _LOG.error("an undo of run %s failed; it will be tried again", run_id, exc_info=error)
    _found, run = _load(ports, run_id)
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
    try:
        ports.documents.commit([proof, raised])
    except ConflictError:
        return  # told before
    ports.alerts.send(told)


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
    begun = _journal(run, step.name, entry)
    writes: list[Write] = []
    if run.state is RunState.PENDING:
        begun = begun.evolve(state=advance(RUN, run.state, "claim"))
        writes.append(Create(records.turn_path(run.account_id), {"run_id": run.run_id}))
    try:
        land(ports, [Update(found.path, begun.document(), found.revision), *writes])
    except ConflictError as error:
        raise _ElsewhereError(error.code, error.detail) from error
    return begun


def _finish(ports: Ports, runbook: Runbook, run: Run, step: Step, result: Result) -> None:
    found, current = _load(ports, run.run_id)
    if current.journal.get(step.name) != run.journal[step.name]:
        raise _ElsewhereError("fenced", f"step {step.name} was taken over")
    entry = run.journal[step.name].evolve(state="done", result=dict(result.facts))
    done = _journal(current, step.name, entry)
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
    _end(ports, runbook, done, [Update(found.path, done.document(), found.revision), *writes])


def _end(ports: Ports, runbook: Runbook, run: Run, writes: Sequence[Write]) -> None:
    """Commit a run's end, give the account's turn back, tell who waits, start who is next."""
    turn = ports.documents.get(records.turn_path(run.account_id))
    mine = [Delete(turn.path, turn.revision)] if turn and turn.data["run_id"] == run.run_id else []
    land(ports, [*writes, *mine])
    try:
        runbook.ended(ports, run)
        ports.memory.announce(run.run_id)
    except OutageError:
        pass  # admission and who waits look for themselves as well
    for waiting in ports.documents.scan(
        "runs",
        where=[Where("state", "==", RunState.PENDING), Where("account_id", "==", run.account_id)],
        order_by="started_at",
        limit=1,
    ):
        upcoming = Run.model_validate(waiting.data)
        start(upcoming, RUNBOOKS_BY_NAME[upcoming.runbook])


def _planned(ports: Ports, run: Run, step: Step) -> dict[str, bool]:
    """What this run creates by the step; what an earlier attempt at it planned still counts."""
    earlier = run.journal.get(step.name)
    looked = step.look(ports, run)
    return {k: v or bool(earlier and earlier.created.get(k)) for k, v in looked.items()}


def _may_act(ports: Ports, run: Run, step_name: str) -> bool:
    """Whether the step is not under way in a process that still lives."""
    entry = run.journal.get(step_name)
    return entry is None or entry.claim is None or _may_take(ports, entry.claim)


def _may_take(ports: Ports, claim: ProcessClaim) -> bool:
    """Whether a claim is this process's own, too old, or of a process that is gone."""
    now = ports.clock.now()
    is_old = elapsed_ms(claim.claimed_at, now) > STEP_MAX_AGE_S * 1000
    return is_old or _is_same_process(ports, claim) or ports.processes.is_gone(claim)


def _is_own(ports: Ports, entry: JournalEntry) -> bool:
    return entry.claim is not None and _is_same_process(ports, entry.claim)


def _is_same_process(ports: Ports, claim: ProcessClaim) -> bool:
    own = ports.processes.claim(ports.clock.now())
    return (claim.host, claim.pid, claim.process_started) == (
        own.host, own.pid, own.process_started,
    )  # fmt: skip


def _journal(run: Run, step_name: str, entry: JournalEntry) -> Run:
    return run.evolve(journal={**run.journal, step_name: entry})


def _is_done(run: Run, step_name: str) -> bool:
    entry = run.journal.get(step_name)
    return entry is not None and entry.state == "done"


def _is_next(runbook: Runbook, run: Run, step_name: str) -> bool:
    """Whether every step before this one is done: a chain goes on even where a step gave way."""
    names = [s.name for s in runbook.steps]
    return all(_is_done(run, name) for name in names[: names.index(step_name)])


def _load(ports: Ports, run_id: str) -> tuple[Document, Run]:
    found = ports.documents.get(records.run_path(run_id))
    if found is None:
        raise ConflictError("no-such-run", f"run {run_id} does not exist")
    return found, Run.model_validate(found.data)
