"""Admission: store a signal durably as an action before the ingress acknowledges it (D8)."""

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
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

    Those that are new and fit take two exchanges with Memory and one commit, all together. Any
    other is looked into after those, for itself: one may bring news for the next.

    Raises:
        OutageError: Memory does not answer: of any of them this is the answer.
    """
    asked = _now(ports)
    answers: dict[int, Answer] = {}
    plain: dict[int, Admitted] = {}
    looking = _Looking(ports, asked)
    for n, signal, request, first in _asked_for(ports, signals, asked, answers):
        if first.verdict is not Verdict.ADMITTED or first.in_force:
            looking.others.append((n, signal, request, first))
            continue
        looking.met.add(request.action_id)
        told = or_why(_to_store, ports, signal, request, first)
        if isinstance(told, Admitted):
            plain[n] = told
        else:
            answers[n] = told
    answers |= dict(zip(plain, accept(ports, list(plain.values()), asked), strict=True))
    looking.answer(answers)
    return [answers[n] for n in range(len(signals))]


def _asked_for(
    ports: Ports, signals: Sequence[Signal], asked: Asked, answers: dict[int, Answer]
) -> list[tuple[int, Signal, Request, Admission]]:
    """What Memory says of each; one that cannot be asked for has its answer."""
    known = list[tuple[int, Signal, Request]]()
    for n, signal in enumerate(signals):
        request = or_why(_request, signal, asked)
        if isinstance(request, Request):
            known.append((n, signal, request))
        else:
            answers[n] = request
    admissions = ports.slots.admit([each[2] for each in known]) if known else []
    return [(*each, first) for each, first in zip(known, admissions, strict=True)]


@dataclass(slots=True)
class _Looking:
    """Signals that are refused, repeated or under a newer policy, one after the other.

    Memory's first answer is as old as the turn. It is asked again for a signal where that may be of
    another state: an equal one came before it, or its governor was booted or moved since.
    """

    ports: Ports
    asked: Asked
    others: list[tuple[int, Signal, Request, Admission]] = field(default_factory=list)
    met: set[str] = field(default_factory=set)
    _booted: set[str] = field(default_factory=set)

    def answer(self, answers: dict[int, Answer]) -> None:
        """Answer those that have none yet."""
        moving = [each for each in self.others if each[3].verdict is Verdict.ADMITTED]
        for _, _, request, first in moving[1:]:  # no use of the governor's while it moves
            with contextlib.suppress(OutageError):  # else it is stale, and the reaper's
                _give_back(self.ports, request, first)
            self.met.add(request.action_id)
        away = next((each for each in answers.values() if _is_no_answer(each)), None)
        for n, signal, request, first in self.others:
            if away:  # a store that did not answer for one is not asked for the next
                answers[n] = OutageError(*away.args)
                continue
            told = answers[n] = or_why(self._look, signal, request, first)
            away = told if _is_no_answer(told) else None

    def _look(self, signal: Signal, request: Request, first: Admission) -> str:
        ports, admission, asked = self.ports, first, self.asked
        if request.action_id in self.met:
            admission, asked = _again(ports, request)
        self.met.add(request.action_id)
        if admission.in_force and _is_moved(ports, request, admission):
            admission, asked = _again(ports, request)
        if admission.verdict in _STALE and self._boots(request.account_id):
            admission, asked = _again(ports, request)
        told = _judged(ports, signal, request, admission, asked)
        answer = accept(ports, [told], asked)[0] if isinstance(told, Admitted) else told
        if isinstance(answer, GovernorError):
            raise answer
        return answer

    def _boots(self, account_id: str) -> bool:
        """Whether Memory was told in this turn what Documents know of a governor."""
        if account_id not in self._booted:
            # Once a second at most: refusals must stay cheap.
            may_boot = self.ports.watches.claim_tick(f"boot:{account_id}", 1)
            if may_boot and boot_governor(self.ports, account_id):
                self._booted.add(account_id)
        return account_id in self._booted


def _now(ports: Ports) -> Asked:
    return Asked(ports.clock.now(), ports.clock.monotonic_s())


def _again(ports: Ports, request: Request) -> tuple[Admission, Asked]:
    asked = _now(ports)
    (admission,) = ports.slots.admit([request])
    return admission, asked


def _is_no_answer(told: Answer) -> TypeGuard[OutageError]:
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


def _judged(
    ports: Ports, signal: Signal, request: Request, admission: Admission, asked: Asked
) -> Admitted | str:
    """A signal that has its place; or the id of its action, which was stored before."""
    if admission.verdict not in (Verdict.ADMITTED, Verdict.DUPLICATE):
        if admission.verdict not in _NOT_ASKED and is_stored(ports, request):
            return request.action_id  # Memory had forgotten it; a duplicate is never refused
        ends_in_s = quota.month_ends_in_s(asked.at)
        raise quota.refusal(admission.verdict, month_ends_in_s=ends_in_s)
    if admission.verdict is Verdict.DUPLICATE and is_stored(ports, request):
        return request.action_id
    return _to_store(ports, signal, request, admission)


def _to_store(
    ports: Ports, signal: Signal, request: Request, admission: Admission
) -> Admitted | str:
    """The action of a signal that has its place; of one stored before, its id."""
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


def _is_moved(ports: Ports, request: Request, admission: Admission) -> bool:
    """Have a governor whose plan has a newer version take it first; the place was given back."""
    if number_of(admission.in_force) <= number_of(admission.policy_version):
        return False  # Memory knows less of the version in force than of the governor
    _give_back(ports, request, admission)  # it is no use of the governor's yet
    named = admission.entitlement_id, admission.sku_id, admission.plan_type
    moves.take_up(ports, request.account_id, *named)
    return True


def _give_back(ports: Ports, request: Request, admission: Admission) -> None:
    slot = Slot(request.account_id, admission.entitlement_id, request.action_id)
    ports.slots.release(slot, refund_month=request.month)


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
