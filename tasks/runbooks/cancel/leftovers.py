"""The messages left on the topic of a governor that is shut down: taken, counted, receipted.

A message is named in a commit before it is dropped from the topic, so that it is counted once,
whichever process dies; one that comes again is known by its name.
"""

import json

from pydantic import Field

from governor import paths
from governor.actions import Action
from governor.errors import InputError, OutageError
from governor.records import Record
from governor.runs import Run
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.documents import Create, every
from ports.signals import Topic, Waiting
from tasks.actions.admit import Signal
from tasks.receipts.commit import receipt
from tasks.runbooks.events import event_of
from tasks.runs.definition import Chunk

RESTS_S = 5.0
"""How long an empty topic is looked at again whose messages may rest after a push."""

_TAKE_FOR_S = 20.0
"""How long messages are taken; the number left then is stated as unknown."""

_AT_ONCE = 500


class _Part(Record):
    """``tenants/{account_id}/refused/{run_id}-{number}``: messages of one part, by their names."""

    run_id: str
    names: list[str] = Field(default_factory=list)
    handles: list[str] = Field(default_factory=list)


def refused(ports: Ports, run: Run) -> int:
    """How many were receipted as refused."""
    return len(_known(ports, run))


def left_behind(ports: Ports, run: Run) -> int | None:
    """How many messages are on the topic that were not taken; None where it is not known.

    Where messages rest after a push, nothing found is not nothing there. A topic that is gone was
    deleted by an earlier try of this step, or by an operator, and its number of messages is lost.
    """
    try:
        if ports.signals.look(run.account_id, event_of(run).region) is Topic.ABSENT:
            return None
        reading = ports.signals.backlog(run.account_id)
    except OutageError:
        return None
    return reading if reading or not ports.signals.lets_rest else None


def take_part(ports: Ports, run: Run, cursor: str, *, patience_s: float) -> Chunk:
    """The next messages. It ends when there are none, or after 20 seconds."""
    began_at = cursor or timestamp(ports.clock.now())
    ports.signals.stop_pushing(run.account_id)
    known = _known(ports, run)
    part = _parts(ports, run)
    if part:
        _drop_part(ports, run, part - 1)
    fresh = _fresh(ports, run, known, began_at, patience_s)
    if not fresh:
        return Chunk(None, 0)
    record = _Part(
        run_id=run.run_id,
        names=[each.message_id for each in fresh],
        handles=[each.handle for each in fresh],
    )
    proof = receipt(
        ports,
        "signals_refused",
        run.account_id,
        f"{run.run_id}/{part}",
        attempt=run.attempt,
        status="refused",
        window_end=timestamp(ports.clock.now()),
        total=len(fresh),
        by_reason={"draining": len(fresh)},
    )
    return Chunk(began_at, len(fresh), [Create(_path(run, part), record.document()), proof])


def _fresh(
    ports: Ports, run: Run, known: set[str], began_at: str, patience_s: float
) -> list[Waiting]:
    """Messages that were not counted yet; what was, or was accepted before, is dropped."""
    patience_s = patience_s if ports.signals.lets_rest else 0.0
    while True:
        passed_s = elapsed_ms(began_at, ports.clock.now()) / 1000
        if passed_s > _TAKE_FOR_S:
            return []
        taken = ports.signals.take(run.account_id, _AT_ONCE)
        if not taken and passed_s >= patience_s:
            return []
        fresh = [
            each
            for each in taken
            if each.message_id not in known and not _was_accepted(ports, run, each)
        ]
        names = {each.message_id for each in fresh}
        ports.signals.drop(run.account_id, [e for e in taken if e.message_id not in names])
        if fresh:
            return fresh


def _was_accepted(ports: Ports, run: Run, message: Waiting) -> bool:
    """Whether its very signal is an action already, and only the acknowledgement was lost."""
    try:
        told = json.loads(message.data)
        asked = Signal(
            run.account_id,
            told["signal_id"],
            told["type"],
            told.get("sku_id"),
            told["payload"],
            told.get("entitlement_id"),
        )
        path = paths.action_path(run.account_id, paths.action_id(run.account_id, asked.signal_id))
        sha256 = asked.sha256()
    except (InputError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False  # such a signal has no canonical form: it cannot have been accepted
    found = ports.documents.get(path)
    return found is not None and Action.stored(found.data).signal_sha256 == sha256


def _known(ports: Ports, run: Run) -> set[str]:
    """The names of all messages that were counted."""
    return {name for record in _records(ports, run) for name in record.names}


def _parts(ports: Ports, run: Run) -> int:
    return len(_records(ports, run))


def _records(ports: Ports, run: Run) -> list[_Part]:
    found = every(ports.documents, f"tenants/{run.account_id}/refused")
    return [_Part.stored(d.data) for d in found if d.data.get("run_id") == run.run_id]


def _drop_part(ports: Ports, run: Run, part: int) -> None:
    found = ports.documents.get(_path(run, part))
    if found is None:
        return
    record = _Part.stored(found.data)
    pairs = zip(record.names, record.handles, strict=True)
    ports.signals.drop(run.account_id, [Waiting(name, b"", handle) for name, handle in pairs])


def _path(run: Run, part: int) -> str:
    return f"tenants/{run.account_id}/refused/{run.run_id}-{part:06}"
