"""Admission: store a signal durably as an action before the ingress acknowledges it (D8)."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from ggen_governor.handlers import registered
from governor import actions as rules
from governor import paths, quota
from governor.actions import Action
from governor.compatibility import number_of
from governor.errors import GovernorError, InputError, OutageError
from governor.quota import Verdict
from governor.times import timestamp
from ledger import canonical
from ports import Ports
from ports.slots import Admission, Request, Slot
from tasks.actions import transitions
from tasks.actions.storing import Admitted, Answer, Asked, accept, is_stored, or_why
from tasks.governors import moves, policies
from tasks.governors.boot import boot_governor

T = TypeVar("T")
_LOG = logging.getLogger("ggen.signals")
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
    (answer,) = submit_all(ports, [asked])
    if isinstance(answer, GovernorError):
        raise answer
    return answer


def submit_all(ports: Ports, signals: Sequence[Signal]) -> list[Answer]:
    """``submit`` for signals that wait at the same time, in order; each has its own answer.

    All together take two exchanges with Memory and one commit, where they are new and fit.

    Raises:
        OutageError: Memory does not answer: of any of them this is the answer.
    """
    asked = Asked(ports.clock.now(), ports.clock.monotonic_s())
    requests = [or_why(_request, signal, asked) for signal in signals]
    known = [each for each in requests if isinstance(each, Request)]
    admissions = iter(ports.slots.admit(known) if known else ())
    found: list[Admitted | Answer] = []
    for signal, request in zip(signals, requests, strict=True):
        if isinstance(request, GovernorError):
            found.append(request)
            continue
        admission = next(admissions)
        before = found[-1] if found else ""
        if _is_no_answer(before):  # nor is the store asked for the next
            found.append(OutageError(*before.args))
        else:
            found.append(or_why(_admitted, ports, signal, request, admission, asked))
    waiting = [each for each in found if isinstance(each, Admitted)]
    stored = iter(accept(ports, waiting, asked))
    return [next(stored) if isinstance(each, Admitted) else each for each in found]


def _is_no_answer(told: Admitted | Answer) -> TypeGuard[OutageError]:
    """Whether a store did not answer; else it is a refusal, or the fault of one policy."""
    return type(told) is OutageError and told.code not in set(Verdict)


def _request(signal: Signal, asked: Asked) -> Request:
    return Request(
        account_id=signal.account_id,
        action_id=paths.action_id(signal.account_id, signal.signal_id),
        signal_type=signal.type,
        entitlement_id=signal.entitlement_id,
        sku_id=signal.sku_id,
        signal_sha256=signal.sha256(),
        month=quota.month_of(asked.at),
        look_in_ms=rules.FIRST_LOOK_MS,
        generation=signal.generation,
    )


def _admitted(
    ports: Ports, signal: Signal, request: Request, first: Admission, asked: Asked
) -> Admitted | str:
    """A signal that has its place; or the id of its action, which was stored before."""
    admission = _looked_into(ports, request, first)
    if admission.verdict not in (Verdict.ADMITTED, Verdict.DUPLICATE):
        if admission.verdict not in _NOT_ASKED and is_stored(ports, request):
            return request.action_id  # Memory had forgotten it; a duplicate is never refused
        ends_in_s = quota.month_ends_in_s(asked.at)
        raise quota.refusal(admission.verdict, month_ends_in_s=ends_in_s)
    if admission.verdict is Verdict.DUPLICATE and is_stored(ports, request):
        return request.action_id
    action = _pending(ports, signal, request, admission)
    try:
        _refuse_payload(action)
    except InputError:
        # It takes nothing: neither a slot, nor quota, nor its own signal_id.
        ports.slots.release(Slot.of(action), refund_month=action.month)
        if is_stored(ports, request):
            return request.action_id  # accepted before, under another model
        raise
    return Admitted(action, request, admission)


def _looked_into(ports: Ports, request: Request, first: Admission) -> Admission:
    """Where Memory knows less of the governor than Documents do, tell it, and ask it again."""
    admission = first
    if admission.in_force and _is_moved(ports, request, admission):
        (admission,) = ports.slots.admit([request])
    if admission.verdict not in _STALE:
        return admission
    # Once a second at most: refusals must stay cheap.
    if not ports.watches.claim_tick(f"boot:{request.account_id}", 1):
        return admission
    if boot_governor(ports, request.account_id):
        (admission,) = ports.slots.admit([request])
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
