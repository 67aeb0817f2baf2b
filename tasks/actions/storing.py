"""Admitted signals are stored, in one commit those that came together, and put into their lists."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from governor import actions as rules
from governor import paths, quota
from governor.actions import Action
from governor.errors import ConflictError, GovernorError, InputError, OutageError
from governor.quota import Verdict
from governor.times import elapsed_ms, timestamp
from ports import Ports
from ports.documents import Create
from ports.slots import Admission, Request, Slot
from tasks.actions import dispatch, transitions
from tasks.receipts.commit import commit_each_once

T = TypeVar("T")
_CLOCK_SKEW = timedelta(seconds=5)
"""How far the clocks of two ingresses may be apart (D13)."""

STORED_WITHIN_S = rules.UNSTORED_MS / 1000 / 2
"""How long after it was asked an admitted signal may be stored; far above what it takes."""

Answer = str | GovernorError
"""The id of the action that a signal became, or why it became none."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A signal that has its place, and waits to be stored."""

    action: Action
    request: Request
    admission: Admission


@dataclass(frozen=True, slots=True)
class Asked:
    """When signals were asked for, by the clock of the world and by that of this process."""

    at: datetime
    at_s: float


def or_why(work: Callable[..., T], *given: object) -> T | GovernorError:
    """What becomes of one signal is the error of no other."""
    try:
        return work(*given)
    except GovernorError as error:
        return error


def accept(ports: Ports, waiting: Sequence[Admitted], asked: Asked) -> list[Answer]:
    """Have actions stored, and carried out; for each its id, or why it was not stored."""
    if not waiting:
        return []
    stored = list(zip(waiting, _store(ports, waiting, asked), strict=True))
    new = [each.action for each, landed in stored if isinstance(landed, list)]
    if new:
        dispatch.enqueue(ports, new)
    return [
        or_why(_settle_conflict, ports, each, asked, landed)
        if isinstance(landed, ConflictError)
        else each.action.action_id
        if isinstance(landed, list)
        else landed
        for each, landed in stored
    ]


def _settle_conflict(ports: Ports, refused: Admitted, asked: Asked, error: ConflictError) -> str:
    """See that a signal which could not be stored is there already.

    Raises:
        ConflictError: the id was used with another content.
        OutageError: it came too late, and no earlier try of it had landed.
    """
    action, request = refused.action, refused.request
    if error.code == "too-late" and ports.documents.get(transitions.path_of(action)) is None:
        detail = "the signal was not stored in time; send it again"
        raise OutageError("admission-stale", detail, 1)
    # Stored long before, and Memory had forgotten: give back what was just taken for it. Stored
    # a moment ago, it was by another delivery of this signal, whose slot this is.
    if refused.admission.verdict is Verdict.ADMITTED and _is_older(ports, request, asked.at):
        ports.slots.release(Slot.of(action), refund_month=action.month)
    is_stored(ports, request)
    return request.action_id


def _store(
    ports: Ports, waiting: Sequence[Admitted], asked: Asked
) -> list[list[str] | GovernorError]:
    """Have actions stored; for each its revision, or why it could not be.

    After ``STORED_WITHIN_S`` nothing is: the reaper may have taken its place away, and its
    entitlement may have been drained since, and its actions counted.

    A ConflictError: it is there already, or it came too late; an earlier try may have landed. An
    OutageError: no answer. It may have landed after a rebuild of Memory that did not find it:
    Memory is told all the same, and the reaper gives back what was not stored.
    """
    by_s = asked.at_s + STORED_WITHIN_S
    commits = [
        [Create(transitions.path_of(each.action), each.action.document(), by_s)] for each in waiting
    ]
    stored: list[list[str] | GovernorError]
    try:
        stored = [*commit_each_once(ports, commits, patience_s=ports.times.store_timeout_s)]
    except OutageError as error:
        stored = [OutageError(*error.args) for _ in waiting]
    with contextlib.suppress(OutageError):  # a Memory that is away is rebuilt, and looks at all
        for each, landed in zip(waiting, stored, strict=True):
            if not isinstance(landed, (ConflictError, InputError)):
                _tell_of_the_unusual(ports, each.action, each.admission.era, asked.at)
    return stored


def _tell_of_the_unusual(ports: Ports, action: Action, era: str, asked_at: datetime) -> None:
    """Memory may have been rebuilt before a slow action was stored; one may be due very soon."""
    slot = Slot.of(action)
    took_ms = elapsed_ms(timestamp(asked_at), ports.clock.now())
    if took_ms > rules.STORED_MS:
        ports.slots.hold(slot, action.month, era, is_late=took_ms >= rules.UNSTORED_MS)
    if action.queue_timeout_ms < rules.FIRST_LOOK_MS:
        ports.slots.look_again(slot, action.queue_timeout_ms)


def _is_older(ports: Ports, request: Request, now: datetime) -> bool:
    found = ports.documents.get(paths.action_path(request.account_id, request.action_id))
    return found is not None and Action.stored(found.data).accepted_at < timestamp(
        now - _CLOCK_SKEW
    )


def is_stored(ports: Ports, request: Request) -> bool:
    """Whether a signal is stored already.

    Raises:
        ConflictError: another one is, under its id.
    """
    found = ports.documents.get(paths.action_path(request.account_id, request.action_id))
    if found is None:
        return False
    if Action.stored(found.data).signal_sha256 != request.signal_sha256:
        raise quota.refusal(Verdict.CONFLICT, month_ends_in_s=0)
    return True
