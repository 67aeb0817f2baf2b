"""A run's own document: read, claimed, handed to the workers, put off, and ended.

======================  ==========================  ===============================================
state                   lasts no longer than        then
======================  ==========================  ===============================================
pending                 its deadline (15 minutes)   it is refused for now (``run-deadline``)
running                 its deadline (60 s more)    it is undone (``run-deadline``)
… a step under way      ``STEP_MAX_AGE_S``          another process takes it over
… a step put off        its ``retry_at``            it is tried again, until the run's deadline
… a step that waits     the step's ``wait_limit_s`` it acts, or the run is undone (``waits.py``)
compensating            its ``retry_at``            the undo is tried again; then it is parked
parked                  its ``retry_at``            the undo is tried again, for as long as it takes
======================  ==========================  ===============================================
"""

import contextlib
import logging
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from secrets import SystemRandom

from governor import paths
from governor.errors import ConflictError, OutageError
from governor.fsm import RUN, RUN_ACTING, RUN_OPEN, RunState, advance
from governor.records import ProcessClaim
from governor.runs import JournalEntry, Run
from governor.times import elapsed_ms, instant, timestamp
from ports import Ports
from ports.alerts import Alert
from ports.documents import Delete, Document, Query, Where, Write
from tasks import publish
from tasks.receipts.commit import ask_for_a_seal, commit_once
from tasks.runs.definition import MAX_STEP_S, Runbook, Runbooks

_LOG = logging.getLogger("ggen.runs")
_JITTER = SystemRandom()

STEP_MAX_AGE_S = 33
"""After this long another process may take a step over, whatever became of the one that had it.
Longer by as much as the step's own time limit is."""


def end(
    ports: Ports, runbooks: Runbooks, run: Run, writes: Sequence[Write], told: Alert | None = None
) -> None:
    """Commit a run's end, send its alert, give the turn back, tell who waits, start who is next."""
    turn = ports.documents.get(paths.turn_path(run.turn))
    mine = [Delete(turn.path, turn.revision)] if turn and turn.data["run_id"] == run.run_id else []
    commit_once(ports, [*writes, *mine], asks_for_seal=False)
    if told:
        ports.alerts.send(told)
    # If any of this is missed: admission, the waiting ingress and the reaper look by themselves.
    with contextlib.suppress(OutageError):
        runbooks[run.runbook].ended(ports, run)
    with contextlib.suppress(OutageError):
        ports.announcements.announce(run.run_id)
    ask_for_a_seal(ports, writes)
    with contextlib.suppress(OutageError):
        _start_next(ports, runbooks, run.turn)
    with contextlib.suppress(OutageError):
        _wake_parent(ports, runbooks, run)


def _start_next(ports: Ports, runbooks: Runbooks, turn: str) -> None:
    for found in _waiting(ports, turn):
        if found.data["runbook"] in runbooks:
            send(runbooks, Run.stored(found.data))
            return


def _wake_parent(ports: Ports, runbooks: Runbooks, run: Run) -> None:
    """Have the run that started this one go on, if this was the last it waited for."""
    if run.parent is None or children(ports, run.parent, only_open=True, limit=1):
        return
    parent = load(ports, run.parent)[1]
    if waiting_entry(parent):
        send(runbooks, parent)


def children(ports: Ports, run_id: str, *, only_open: bool, limit: int) -> list[Run]:
    """Runs that this run has started."""
    where = [Where("parent", "==", run_id)]
    if only_open:
        where.append(Where("state", "in", RUN_OPEN))
    return [
        Run.stored(d.data) for d in ports.documents.scan(Query("runs", where=where, limit=limit))
    ]


def send(runbooks: Runbooks, run: Run) -> None:
    """Send the chain of what this run has left to do, if this version knows its runbook."""
    if runbook := runbooks.get(run.runbook):
        publish.chain(run, runbook.links(run))


def later(ports: Ports, failures: int, *, first_s: float = 0.5, longest_s: float = 15) -> str:
    """When to try again after so many failures: twice as late each time, by chance a bit off."""
    wait_s = min(longest_s, first_s * 2.0 ** min(failures - 1, 30)) * _JITTER.uniform(0.5, 1.5)
    return timestamp(ports.clock.now() + timedelta(seconds=wait_s))


def is_due(ports: Ports, run: Run) -> bool:
    """Whether the time to try again has come, or there is none to wait for."""
    return run.retry_at is None or ports.clock.now() >= instant(run.retry_at)


def may_take(ports: Ports, claim: ProcessClaim) -> bool:
    """Whether a claim is this process's own, too old, or of a process that is gone."""
    if is_same_process(ports, claim) or ports.processes.is_gone(claim):
        return True
    limit_s = claim.limit_s + STEP_MAX_AGE_S - MAX_STEP_S
    return elapsed_ms(claim.claimed_at, ports.clock.now()) > limit_s * 1000


def claim_from(
    ports: Ports, claim: ProcessClaim | None, limit_s: float = MAX_STEP_S
) -> ProcessClaim:
    """A claim in this process's name; the process that held it until now acts no more.

    Its process should have been killed by Celery, which does not happen while the worker's parent
    is busy reconnecting to the broker. On another host its time limit has to be relied upon.
    """
    if claim and not is_same_process(ports, claim):
        ports.processes.kill(claim)
    return ports.processes.claim(ports.clock.now()).evolve(limit_s=limit_s)


def is_free(ports: Ports, run: Run) -> bool:
    """Whether no other live process is at one of the run's steps, or at an undo."""
    return all(may_take(ports, claim) for claim in claims_of(run))


def claims_of(run: Run) -> list[ProcessClaim]:
    """Who says to be at a step, or at its undo."""
    claims = [e.claim for e in run.journal.values() if e.state == "intent"]
    claims += [e.undo_claim for e in run.journal.values() if e.state != "undone"]
    return [claim for claim in claims if claim]


def is_own(ports: Ports, entry: JournalEntry) -> bool:
    """Whether this very process journalled the step last."""
    return entry.claim is not None and is_same_process(ports, entry.claim)


def is_same_process(ports: Ports, claim: ProcessClaim) -> bool:
    """Whether a claim is in this process's name."""
    own = ports.processes.claim(ports.clock.now())
    return ports.processes.sees(claim) and (claim.pid, claim.process_started) == (
        own.pid,
        own.process_started,
    )


def with_entry(run: Run, step_name: str, entry: JournalEntry) -> Run:
    """The run with ``entry`` as its journal's entry of that step."""
    return run.evolve(journal={**run.journal, step_name: entry})


def claimed(ports: Ports, runbook: Runbook, run: Run) -> Run:
    """The run as it is once it acts: its time runs, and it is due. Not stored yet."""
    if run.state is not RunState.PENDING:
        if run.retry_at is None and waiting_entry(run) is None:
            return run
        return run.evolve(retry_at=None, deadline_at=timestamp(deadline(ports, run)))
    seconds = ports.times.run_deadline_s if runbook.deadline_s is None else runbook.deadline_s
    return run.evolve(
        state=advance(RUN, run.state, "claim"),
        definition_sha256=runbook.definition_sha256(),
        deadline_at=timestamp(ports.clock.now() + timedelta(seconds=seconds)),
        retry_at=None,
    )


def deadline(ports: Ports, run: Run) -> datetime:
    """Until when a run may act; what it waits for meanwhile does not count."""
    waiting, at = waiting_entry(run), instant(run.deadline_at)
    if waiting is None or waiting.wait is None or waiting.wait.since is None:
        return at
    return at + max(timedelta(), ports.clock.now() - instant(waiting.wait.since))


def waits_its_turn(run: Run) -> bool:
    """Whether a run came behind another, so that it has no time to keep yet.

    Its event was acknowledged, and is not delivered again: however long that takes, it waits.
    """
    return run.state is RunState.PENDING and not run.has_turn


def is_next_in_turn(ports: Ports, run: Run, known: Collection[str] = ()) -> bool:
    """Whether no run that waits for the same turn came before this one.

    Given the names of all runbooks, a run of another version's keeps no other waiting.
    """
    for found in _waiting(ports, run.turn):
        if found.path == paths.run_path(run.run_id):
            return True
        if not known or found.data["runbook"] in known:
            return False
    return True


def _waiting(ports: Ports, turn: str) -> list[Document]:
    """The first runs that wait for a turn, or have it and have not begun."""
    pending = [Where("state", "==", RunState.PENDING), Where("turn", "==", turn)]
    return ports.documents.scan(Query("runs", where=pending, order_by="started_at", limit=50))


def waiting_entry(run: Run) -> JournalEntry | None:
    """What the journal says of the step that waits, if one does."""
    if run.state not in RUN_ACTING:
        return None
    return next((e for e in run.journal.values() if e.state == "waiting"), None)


def load(ports: Ports, run_id: str) -> tuple[Document, Run]:
    """A run as it is now, with the document it was read from.

    Raises:
        ConflictError: there is none.
    """
    found = ports.documents.get(paths.run_path(run_id))
    if found is None:
        raise ConflictError("no-such-run", f"there is no run {run_id}")
    return found, Run.stored(found.data)
