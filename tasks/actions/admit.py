"""Admission: store a signal durably as an action before the ingress acknowledges it (D8)."""

import contextlib
import hashlib
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ggen_governor.handlers import registered
from governor import actions as rules
from governor import paths, quota
from governor.actions import Action
from governor.compatibility import number_of
from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError
from governor.quota import Verdict
from governor.times import elapsed_ms, timestamp
from ledger import canonical
from ports import Ports
from ports.documents import Create
from ports.slots import Admission, Request, Slot
from tasks.actions import dispatch, transitions
from tasks.governors import moves, policies
from tasks.governors.boot import boot_governor
from tasks.receipts.commit import commit_once

_LOG = logging.getLogger("ggen.signals")
_CLOCK_SKEW = timedelta(seconds=5)
"""How far the clocks of two ingresses may be apart (D13)."""

STORED_WITHIN_S = rules.UNSTORED_MS / 1000 / 2
"""How long after it was asked an admitted signal may be stored; far above what it takes."""

_NOT_ASKED = (Verdict.NO_LEASE, Verdict.DEGRADED, Verdict.CONFLICT, Verdict.STALE_KEY)
"""Refusals that look at nothing else."""

_STALE = (
    Verdict.UNKNOWN_TENANT,
    Verdict.STALE_KEY,
    Verdict.DRAINING,
    Verdict.SUSPENDED,
    Verdict.NOT_PERMITTED,
)
"""Refusals that may be wrong: Memory may know less of the governor than Documents do."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A validated signal of one tenant."""

    account_id: str
    signal_id: str
    type: str
    sku_id: str | None
    payload: dict[str, Any]
    entitlement_id: str | None = None
    generation: int | None = None
    """Of the key that signed it; None where it was pushed."""

    def sha256(self) -> str:
        """What must be equal for two signals of one id to be the same signal."""
        content = {"type": self.type, "sku_id": self.sku_id, "payload": self.payload}
        if self.entitlement_id:
            content["entitlement_id"] = self.entitlement_id
        return hashlib.sha256(canonical.dumps(content)).hexdigest()


def submit(ports: Ports, asked: Signal) -> str:
    """Accept a signal durably and have it acted on; the id of its action.

    The same signal again gives the same id and costs nothing.

    Raises:
        InputError: unknown tenant, a payload without canonical form, or ``payload-invalid``: the
            handler's model refuses it, and says which fields.
        DeniedError: not permitted, or beyond a quota; ``retry_after_s`` says when to come back.
        ConflictError: the id was used with another content, or several entitlements fit and it
            names neither ``sku_id`` nor ``entitlement_id``.
        OutageError: refused for now, or no answer: it MAY HAVE BEEN accepted; repeat it.
    """
    now, asked_s = ports.clock.now(), ports.clock.monotonic_s()
    request = Request(
        account_id=asked.account_id,
        action_id=paths.action_id(asked.account_id, asked.signal_id),
        signal_type=asked.type,
        entitlement_id=asked.entitlement_id,
        sku_id=asked.sku_id,
        signal_sha256=asked.sha256(),
        month=quota.month_of(now),
        look_in_ms=rules.FIRST_LOOK_MS,
        generation=asked.generation,
    )
    admission = _admit(ports, request)
    if admission.verdict not in (Verdict.ADMITTED, Verdict.DUPLICATE):
        if admission.verdict not in _NOT_ASKED and _is_stored(ports, request):
            return request.action_id  # Memory had forgotten it; a duplicate is never refused
        raise refusal(admission.verdict, month_ends_in_s=quota.month_ends_in_s(now))
    if admission.verdict is Verdict.DUPLICATE and _is_stored(ports, request):
        return request.action_id
    action = _pending(ports, asked, request, admission)
    try:
        _refuse_payload(action)
    except InputError:
        # It takes nothing: neither a slot, nor quota, nor its own signal_id.
        ports.slots.release(Slot.of(action), refund_month=action.month)
        if _is_stored(ports, request):
            return request.action_id  # accepted before, under another model
        raise
    try:
        _store(ports, action, admission.era, now, by_s=asked_s + STORED_WITHIN_S)
    except ConflictError as error:
        _settle_conflict(ports, action, request, admission, now, error)
        return request.action_id
    dispatch.enqueue(ports, action)
    return request.action_id


def _settle_conflict(
    ports: Ports,
    action: Action,
    request: Request,
    admission: Admission,
    now: datetime,
    error: ConflictError,
) -> None:
    """See that a signal which could not be stored is there already.

    Raises:
        ConflictError: the id was used with another content.
        OutageError: it came too late, and no earlier try of it had landed.
    """
    if error.code == "too-late" and ports.documents.get(transitions.path_of(action)) is None:
        detail = "the signal was not stored in time; send it again"
        raise OutageError("admission-stale", detail, 1)
    # Stored long before, and Memory had forgotten: give back what was just taken for it. Stored
    # a moment ago, it was by another delivery of this signal, whose slot this is.
    if admission.verdict is Verdict.ADMITTED and _is_older(ports, request, now):
        ports.slots.release(Slot.of(action), refund_month=action.month)
    _is_stored(ports, request)


def _store(ports: Ports, action: Action, era: str, asked_at: datetime, *, by_s: float) -> None:
    """Have an action stored that was admitted in ``era``.

    After ``by_s`` nothing is: the reaper may have taken its place away, and its entitlement may
    have been drained since, and its actions counted.

    Raises:
        ConflictError: it is there already, or it came too late; an earlier try may have landed.
        OutageError: no answer. It may have landed after a rebuild of Memory that did not find it:
            Memory is told all the same, and the reaper gives back what was not stored.
    """
    write = Create(transitions.path_of(action), action.document(), by_s)
    try:
        commit_once(ports, [write], patience_s=ports.times.store_timeout_s)
    except OutageError:
        _tell_of_the_unusual(ports, action, era, asked_at)
        raise
    _tell_of_the_unusual(ports, action, era, asked_at)


def _admit(ports: Ports, request: Request) -> Admission:
    """Ask Memory; where it knows less of the governor than Documents do, tell it, ask again."""
    admission = ports.slots.admit(request)
    if admission.in_force and _is_moved(ports, request, admission):
        admission = ports.slots.admit(request)
    if admission.verdict not in _STALE:
        return admission
    # Once a second at most: refusals must stay cheap.
    if not ports.watches.claim_tick(f"boot:{request.account_id}", 1):
        return admission
    if boot_governor(ports, request.account_id):
        return ports.slots.admit(request)
    return admission


def _is_moved(ports: Ports, request: Request, admission: Admission) -> bool:
    """Have a governor whose plan has a newer version take it first; the place was given back."""
    if number_of(admission.in_force) <= number_of(admission.policy_version):
        return False  # Memory knows less of the version in force than of the governor
    slot = Slot(request.account_id, admission.entitlement_id, request.action_id)
    ports.slots.release(slot, refund_month=request.month)  # it is no use of the governor's yet
    named = admission.entitlement_id, admission.sku_id, admission.plan_type
    moves.take_up(ports, request.account_id, *named)
    return True


def refusal(  # noqa: C901, PLR0911  # a table
    verdict: Verdict, *, month_ends_in_s: int
) -> GovernorError:
    """The error a refused signal is answered with (D8)."""
    code = verdict.value
    match verdict:
        case Verdict.NO_LEASE | Verdict.DEGRADED:
            return OutageError(code, "new actions are refused until the store is healthy again", 5)
        case Verdict.DRAINING:
            return OutageError(code, "this governor takes no new actions in its present state", 30)
        case Verdict.SUSPENDED:
            return DeniedError(
                code, "the marketplace has suspended this entitlement; nothing of it was deleted"
            )
        case Verdict.STALE_KEY:
            return InputError(
                code, "this key is of a former subscription: sign with the account's present key"
            )
        case Verdict.CONCURRENCY:
            return DeniedError(code, "as many actions as the plan allows are in flight", 1)
        case Verdict.QUOTA:
            return DeniedError(code, "this month's actions are used up", month_ends_in_s)
        case Verdict.NOT_PERMITTED:
            return DeniedError(code, "no such entitlement of this account permits this signal type")
        case Verdict.UNKNOWN_TENANT:
            return InputError(code, "this account has no governor; it must subscribe first")
        case Verdict.AMBIGUOUS:
            return ConflictError(code, "several entitlements fit: name one in entitlement_id")
        case _:
            return ConflictError(code, "this signal_id was used before with another content")


def _pending(ports: Ports, asked: Signal, request: Request, admission: Admission) -> Action:
    named = admission.sku_id, admission.plan_type, admission.policy_version
    found = policies.load_named(ports, *named)
    terms = found.policy
    name = terms.route()[asked.type]
    spec = terms.actions[name]
    return Action(
        action_id=request.action_id,
        account_id=asked.account_id,
        entitlement_id=admission.entitlement_id,
        sku_id=admission.sku_id,
        signal_id=asked.signal_id,
        signal_type=asked.type,
        signal_sha256=request.signal_sha256,
        payload=canonical.dumps(asked.payload).decode(),
        handler=spec.handler or name,
        execute_url=spec.execute_url,
        rollback_url=spec.rollback_url,
        plan_type=admission.plan_type,
        dispatch_weight=terms.dispatch_weight,
        policy_version=admission.policy_version,
        policy_digest=found.digest,
        timeout_ms=spec.timeout_ms,
        rollback_timeout_ms=spec.rollback_timeout_ms,
        queue_timeout_ms=spec.queue_timeout_ms,
        recoverable=spec.recoverable,
        deadline_from_submit=spec.deadline_from == "submit",
        has_rollback=bool(spec.rollback_url or _has_undo(spec.handler)),
        is_alerted=False,
        accepted_at=timestamp(ports.clock.now()),
        month=request.month,
    )


def _has_undo(handler: str | None) -> bool:
    return handler is not None and registered()[handler].undo is not None


def _refuse_payload(action: Action) -> None:
    """Have the handler's model look at the payload before anything is stored of it (D29).

    A model that raises any other error is its author's mistake, not the tenant's. The action is
    accepted. It ends as failed in the worker, whose log shows the error to the author.
    """
    if action.execute_url:
        return  # its receiver looks at it
    try:
        registered()[action.handler].parse(action.payload)
    except InputError:
        raise
    except Exception as error:
        transitions.log_failure(action, "payload model of", error)


def _tell_of_the_unusual(ports: Ports, action: Action, era: str, asked_at: datetime) -> None:
    """Memory may have been rebuilt before a slow action was stored; one may be due very soon."""
    slot = Slot.of(action)
    took_ms = elapsed_ms(timestamp(asked_at), ports.clock.now())
    with contextlib.suppress(OutageError):  # a Memory that is away is rebuilt, and looks at all
        if took_ms > rules.STORED_MS:
            ports.slots.hold(slot, action.month, era, is_late=took_ms >= rules.UNSTORED_MS)
        if action.queue_timeout_ms < rules.FIRST_LOOK_MS:
            ports.slots.look_again(slot, action.queue_timeout_ms)


def _is_older(ports: Ports, request: Request, now: datetime) -> bool:
    found = ports.documents.get(paths.action_path(request.account_id, request.action_id))
    return found is not None and Action.stored(found.data).accepted_at < timestamp(
        now - _CLOCK_SKEW
    )


def _is_stored(ports: Ports, request: Request) -> bool:
    found = ports.documents.get(paths.action_path(request.account_id, request.action_id))
    if found is None:
        return False
    if Action.stored(found.data).signal_sha256 != request.signal_sha256:
        raise refusal(Verdict.CONFLICT, month_ends_in_s=0)
    return True
