"""An event becomes a run, once: the run is the claim of its event.

Redelivered, the same event finds the same run and gets the same receipt.
"""

import hashlib
from datetime import timedelta

from governor import paths
from governor.errors import ConflictError
from governor.fsm import RunState
from governor.runs import Run
from governor.tenancy import MarketplaceEvent
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Document
from tasks import publish
from tasks.receipts.commit import commit_once
from tasks.runs.definition import Runbook
from tasks.runs.operators import attempt_again


def begin(ports: Ports, runbook: Runbook, event: MarketplaceEvent, body: bytes) -> Run:
    """Start the run of an event, or find the one it started; the run as it is now.

    A run that was refused for now is attempted again.

    Raises:
        ConflictError: the event's id came before with another content.
        OutageError: the run may have been started; repeating is safe.
    """
    run = new_run(ports, runbook, event, body)
    path = paths.run_path(run.run_id)
    found = ports.documents.get(path)  # a read costs other processes nothing; redelivery is common
    if found is not None:
        return _again(ports, runbook, found, run)
    try:
        commit_once(ports, [Create(path, run.document())])
    except ConflictError:
        found = ports.documents.get(path)
        if found is None:
            raise
        return _again(ports, runbook, found, run)
    publish.run(run)
    return run


def new_run(ports: Ports, runbook: Runbook, event: MarketplaceEvent, body: bytes) -> Run:
    """The run an event starts, not stored yet."""
    now = ports.clock.now()
    return Run(
        run_id=paths.run_id(event.event_id),
        runbook=runbook.name,
        definition_sha256=runbook.definition_sha256(),
        account_id=event.account_id,
        event_id=event.event_id,
        body_sha256=hashlib.sha256(body).hexdigest(),
        body=body.decode(),
        event=event,
        started_at=timestamp(now),
        deadline_at=timestamp(now + timedelta(seconds=ports.times.run_queue_timeout_s)),
    )


def _again(ports: Ports, runbook: Runbook, found: Document, asked: Run) -> Run:
    former = Run.stored(found.data)
    is_same = former.body_sha256 == asked.body_sha256 or former.event.says_the_same(asked.event)
    if not is_same:
        raise ConflictError("event-id-reused", "this event_id came before with another content")
    if former.state is not RunState.FAILED:
        return former
    return attempt_again(ports, runbook, found, asked.event)
