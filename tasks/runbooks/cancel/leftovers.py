"""The messages left on the topic of a governor that is shut down: taken, counted, receipted.

A message is named in a commit before it is dropped from the topic, so that it is counted once,
whichever process dies; one that comes again is known by its name.
"""

import json

from pydantic import Field

from governor import paths
from governor.errors import OutageError
from governor.records import Record
from governor.runs import Run
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.documents import Create, every
from ports.signals import Waiting
from tasks.receipts.commit import receipt
from tasks.runs.definition import Chunk

_AT_ONCE = 500
_TAKE_FOR_S = 8.0
"""How long messages are taken; the number left then is stated as unknown."""


class Refused(Record):
    """``tenants/{account_id}/refused/{run_id}``: what came of a topic's last messages."""

    count: int = 0
    undelivered_unknown: int | None = 0


class _Part(Record):
    """``tenants/{account_id}/refused/{run_id}-{number}``: messages of one part, by their names."""

    run_id: str
    names: list[str] = Field(default_factory=list)
    handles: list[str] = Field(default_factory=list)


def summary(ports: Ports, run: Run) -> Refused:
    """What came of them; nothing where the topic stays."""
    found = ports.documents.get(_path(run))
    return Refused.stored(found.data) if found else Refused()


def take_part(ports: Ports, run: Run, cursor: str) -> Chunk:
    """The next messages; the last part states what came of all."""
    number, _, began_at = cursor.partition("@")
    part, began_at = int(number or 0), began_at or timestamp(ports.clock.now())
    ports.signals.stop_pushing(run.account_id)
    known = _known(ports, run)
    if part:
        _drop_part(ports, run, part - 1)
    is_late = elapsed_ms(began_at, ports.clock.now()) > _TAKE_FOR_S * 1000
    fresh = [] if is_late else _fresh(ports, run, known)
    if not fresh:
        left = _backlog(ports, run) if is_late else 0
        told = Refused(count=len(known), undelivered_unknown=left)
        return Chunk(None, 0, [Create(_path(run), told.document())])
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
    writes = [Create(_path(run, part), record.document()), proof]
    return Chunk(f"{part + 1}@{began_at}", len(fresh), writes)


def _fresh(ports: Ports, run: Run, known: set[str]) -> list[Waiting]:
    """Messages that were not counted yet; what was, or was accepted before, is dropped."""
    for _ in range(2):  # a service may say that there is nothing although there is
        while taken := ports.signals.take(run.account_id, _AT_ONCE):
            fresh = [
                each
                for each in taken
                if each.message_id not in known and not _was_accepted(ports, run, each)
            ]
            names = {each.message_id for each in fresh}
            ports.signals.drop(run.account_id, [e for e in taken if e.message_id not in names])
            if fresh:
                return fresh
    return []


def _was_accepted(ports: Ports, run: Run, message: Waiting) -> bool:
    """Whether a message's signal is an action already, and only its acknowledgement was lost."""
    try:
        signal_id = json.loads(message.data)["signal_id"]
        path = paths.action_path(run.account_id, paths.action_id(run.account_id, signal_id))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
    return ports.documents.get(path) is not None


def _known(ports: Ports, run: Run) -> set[str]:
    """The names of all messages that were counted."""
    folder = f"tenants/{run.account_id}/refused"
    parts = (d.data for d in every(ports.documents, folder) if d.data.get("run_id") == run.run_id)
    return {name for data in parts for name in _Part.stored(data).names}


def _drop_part(ports: Ports, run: Run, part: int) -> None:
    found = ports.documents.get(_path(run, part))
    if found is None:
        return
    record = _Part.stored(found.data)
    pairs = zip(record.names, record.handles, strict=True)
    ports.signals.drop(run.account_id, [Waiting(name, b"", handle) for name, handle in pairs])


def _backlog(ports: Ports, run: Run) -> int | None:
    try:
        return ports.signals.backlog(run.account_id)
    except OutageError:
        return None


def _path(run: Run, part: int | None = None) -> str:
    name = run.run_id if part is None else f"{run.run_id}-{part:06}"
    return f"tenants/{run.account_id}/refused/{name}"
