"""What triggers a run becomes one, once: the run is the claim of its trigger.

Triggered again, it is the same run, with the same receipt.
"""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import ValidationError

from governor import paths
from governor.errors import ConflictError, InputError
from governor.fsm import RunState
from governor.runs import Run, Trigger
from governor.tenancy import MarketplaceEvent
from governor.times import timestamp
from ports import Ports
from ports.documents import Create, Document
from tasks import publish
from tasks.receipts.commit import commit_once
from tasks.runs.definition import Runbook
from tasks.runs.journal import is_next_in_turn
from tasks.runs.operators import attempt_again


def begin(ports: Ports, runbook: Runbook, run: Run) -> Run:
    """Start a run made by ``new_run``, or find the one of its key; the run as it is now.

    A run that was refused for now is attempted again. It takes its turn where that is free; else it
    waits, and the run before it starts it.

    Raises:
        ConflictError: its key came before with other inputs.
        OutageError: the run may have been started; repeating is safe.
    """
    path = paths.run_path(run.run_id)
    found = ports.documents.get(path)  # a read costs other processes nothing; redelivery is common
    if found is not None:
        return _again(ports, runbook, found, run)
    if not is_next_in_turn(ports, run):
        return _begin_behind(ports, runbook, run)  # others wait for it, and came before
    first = run.evolve(has_turn=True)
    turn = Create(paths.turn_path(run.turn), {"run_id": run.run_id})
    try:
        commit_once(ports, [Create(path, first.document()), turn])
    except ConflictError:
        found = ports.documents.get(path)
        if found is not None:
            return _again(ports, runbook, found, run)
        return _begin_behind(ports, runbook, run)
    publish.chain(first, runbook.links(first))
    return first


def _begin_behind(ports: Ports, runbook: Runbook, run: Run) -> Run:
    """The same where another run has the turn."""
    path = paths.run_path(run.run_id)
    try:
        commit_once(ports, [Create(path, run.document())])
    except ConflictError:
        found = ports.documents.get(path)
        if found is None:
            raise
        return _again(ports, runbook, found, run)
    is_free = ports.documents.get(paths.turn_path(run.turn)) is None  # that run ended meanwhile
    if is_free and is_next_in_turn(ports, run):
        publish.chain(run, runbook.links(run))
    return run


def new_run(
    ports: Ports,
    runbook: Runbook,
    inputs: Mapping[str, Any],
    *,
    account_id: str,
    trigger: Trigger,
    dedupe_key: str,
    turn: str = "",
    parent: str | None = None,
    body: bytes = b"",
) -> Run:
    """A run that is not stored yet.

    Its ``turn`` is the account's unless another is given; one with a ``parent``, which may hold
    that turn, has its own. Key children by ``parent.maker``: another attempt starts others.

    Raises:
        InputError: ``invalid-inputs``: the runbook's own model refuses them; names the fields.
    """
    try:
        valid = runbook.inputs.model_validate(dict(inputs))
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, f['loc'])) or 'inputs'}: {f['msg']}"
            for f in error.errors(include_url=False, include_input=False)[:20]
        )
        detail = f"{runbook.name} was not started: {faults}"
        raise InputError("invalid-inputs", detail) from None
    run_id = paths.triggered_run_id(runbook.name, trigger, dedupe_key)
    if trigger is Trigger.WEBHOOK:
        run_id = paths.run_id(dedupe_key)
    now = ports.clock.now()
    return Run(
        run_id=run_id,
        runbook=runbook.name,
        definition_sha256=runbook.definition_sha256(),
        account_id=account_id,
        trigger=trigger,
        inputs=valid.model_dump(mode="json"),
        dedupe_key=dedupe_key,
        turn=turn or (f"child/{run_id}" if parent else f"account/{account_id}"),
        parent=parent,
        body_sha256=hashlib.sha256(body).hexdigest() if body else "",
        body=body.decode(),
        started_at=timestamp(now),
        deadline_at=timestamp(now + timedelta(seconds=ports.times.run_queue_timeout_s)),
    )


def _again(ports: Ports, runbook: Runbook, found: Document, asked: Run) -> Run:
    former = Run.stored(found.data)
    if not _says_the_same(former, asked):
        key = "event_id" if asked.trigger is Trigger.WEBHOOK else "key"
        code = "event-id-reused" if asked.trigger is Trigger.WEBHOOK else "key-reused"
        raise ConflictError(code, f"this {key} came before with another content")
    if former.state is not RunState.FAILED:
        return former
    return attempt_again(ports, runbook, found, asked.inputs)


def _says_the_same(former: Run, asked: Run) -> bool:
    if former.body_sha256 and former.body_sha256 == asked.body_sha256:
        return True
    if asked.trigger is Trigger.WEBHOOK:
        told = MarketplaceEvent.stored(former.inputs)
        return told.says_the_same(MarketplaceEvent.stored(asked.inputs))
    return former.inputs == asked.inputs
