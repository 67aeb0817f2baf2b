"""Runs as an operator handles them: listed, taken up again, cancelled."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from governor.errors import ConflictError, InputError
from governor.fsm import RUN, RUN_ACTING, RUN_OPEN, RUN_UNDOING, RunState, advance
from governor.runs import Cancellation, Run, Trigger
from governor.times import timestamp
from ports import Ports
from ports.documents import Document, Query, Update, Where
from tasks import publish
from tasks.receipts.commit import commit_once
from tasks.runs.definition import Runbook, Runbooks
from tasks.runs.journal import load

_TRIES = 5
_OF_ITS_TRIGGER = {
    "run_id",
    "runbook",
    "account_id",
    "trigger",
    "dedupe_key",
    "turn",
    "parent",
    "body_sha256",
    "body",
}
"""What every attempt at a run has in common."""


def listed(
    ports: Ports,
    account_id: str | None,
    *,
    only_open: bool,
    limit: int,
    after: tuple[str, str] | None = None,
) -> list[Run]:
    """Runs, newest first, past the one at ``after`` (its start and path)."""
    where = [Where("state", "in", RUN_OPEN)] if only_open else []
    if account_id:
        where.append(Where("account_id", "==", account_id))
    found = ports.documents.scan(
        Query("runs", where=where, order_by="started_at", descending=True, after=after, limit=limit)
    )
    return [Run.stored(document.data) for document in found]


def found(ports: Ports, run_id: str) -> Run:
    """One run. Raises InputError when there is none."""
    return _known(ports, run_id)[1]


def shown(run: Run) -> dict[str, Any]:
    """A run as JSON for people, without a webhook's body; its event as release 0.1.0 named it."""
    fields = run.model_dump(mode="json", exclude={"body"})
    if run.trigger is Trigger.WEBHOOK:
        fields |= {"event_id": run.dedupe_key, "event": run.inputs}
    return fields


def resume(ports: Ports, runbooks: Runbooks, run_id: str) -> Run:
    """Have a run taken up now: one put off or parked goes on, a failed one gets a new attempt.

    Raises:
        InputError: there is no such run.
        ConflictError: it ended in a final state; nothing was changed.
    """
    for _ in range(_TRIES):
        found, run = _known(ports, run_id)
        runbook = _runbook_of(runbooks, run)
        if run.state is RunState.FAILED:
            return attempt_again(ports, runbook, found)
        if run.state not in RUN_OPEN:
            raise ConflictError("run-ended", f"run {run_id} ended {run.state}; it was left alone")
        due = run.evolve(retry_at=None)
        if due == run or _moved(ports, found, due):
            publish.chain(due, runbook.links(due))
            return due
    raise ConflictError("run-busy", f"run {run_id} is moving just now; nothing was changed")


def cancel(ports: Ports, runbooks: Runbooks, run_id: str, operator: str, reason: str) -> Run:
    """Have a run undone; it acknowledges at its next step, with ``run_cancelled``.

    Raises:
        InputError: there is no such run.
        ConflictError: it ended, or is being undone already; nothing was changed.
    """
    wish = Cancellation(operator=operator, reason=reason, requested_at=timestamp(ports.clock.now()))
    for _ in range(_TRIES):
        found, run = _known(ports, run_id)
        if run.state in RUN_UNDOING:
            raise ConflictError("run-undone", f"run {run_id} is being undone already")
        if run.state not in RUN_ACTING:
            raise ConflictError("run-ended", f"run {run_id} ended {run.state}; it was left alone")
        runbook = _runbook_of(runbooks, run)
        if runbook.only_goes_forward(run):
            raise ConflictError(
                "no-way-back",
                f"run {run_id} is past {runbook.no_way_back}, and cannot be undone; it goes on by "
                "itself, and nothing was changed",
            )
        wished = run.evolve(cancellation=run.cancellation or wish, retry_at=None)
        if _moved(ports, found, wished):
            publish.chain(wished, runbook.links(wished))
            return wished
    raise ConflictError("run-busy", f"run {run_id} is moving just now; nothing was changed")


def attempt_again(
    ports: Ports, runbook: Runbook, found: Document, inputs: Mapping[str, Any] | None = None
) -> Run:
    """Attempt a run again that failed for now; the run as it is then, whichever process was first.

    A refused delivery changed nothing, so its arrival is not when its event happened: an event
    that names no time happened when the present delivery (``inputs``) arrived, or now.
    """
    former, now = Run.stored(found.data), ports.clock.now()
    happened = former.inputs
    if inputs is not None and inputs.get("is_timed_by_arrival"):
        happened = dict(inputs)
    elif happened.get("is_timed_by_arrival"):
        happened = {**happened, "event_time": timestamp(now)}
    again = Run(
        **former.model_dump(include=_OF_ITS_TRIGGER),
        inputs=happened,
        definition_sha256=runbook.definition_sha256(),
        state=advance(RUN, former.state, "redeliver"),
        attempt=former.attempt + 1,
        started_at=timestamp(now),
        deadline_at=timestamp(now + timedelta(seconds=ports.times.run_queue_timeout_s)),
    )
    if not _moved(ports, found, again):
        return load(ports, former.run_id)[1]
    publish.chain(again, runbook.links(again))
    return again


def _known(ports: Ports, run_id: str) -> tuple[Document, Run]:
    try:
        return load(ports, run_id)
    except ConflictError:
        raise InputError("no-such-run", f"there is no run {run_id}") from None


def _runbook_of(runbooks: Runbooks, run: Run) -> Runbook:
    if run.runbook not in runbooks:
        raise InputError(
            "unknown-runbook",
            f"this version knows no runbook {run.runbook[:64]}; nothing was changed",
        )
    return runbooks[run.runbook]


def _moved(ports: Ports, found: Document, run: Run) -> bool:
    try:
        commit_once(ports, [Update(found.path, run.document(), found.revision)])
    except ConflictError:
        return False
    return True
