"""Each two seconds: sample the load of entitlements under pressure, decide their limits."""

import contextlib
import math
from collections.abc import Sequence
from decimal import Decimal

from governor import paths, quota
from governor.errors import ConflictError, InputError, PolicyError
from governor.fsm import ENTITLEMENT_LIVE
from governor.policy import Policy
from governor.scaling import samples
from governor.scaling.decision import FORBIDDEN, Decision, Inputs, Need, decide
from governor.scaling.history import History
from governor.scaling.samples import Sample
from governor.tenancy import Entitlement
from governor.times import timestamp
from ports import Ports
from ports.documents import Document, every
from tasks.runbooks.scale import limits
from tasks.runbooks.scale.changes import Scaling
from tasks.runbooks.scale.holds import history_of
from tasks.runbooks.scale.sampled import samples_of, taken
from tasks.runbooks.scale_governor import ask
from tasks.sweep import for_a_while, isolating_errors

_AT_ONCE, _FOR_S = 200, 1.0
_LEFT_TO_OTHERS, _ENOUGH_TO_SHARE = 8, 5
"""One worker process in so many, of that many or more: a burst must not have them all."""

_LOOKS = 6

_HEARD_OF_S = 30.0
"""A worker that has said nothing for so long does not count as one that could work."""


def look(ports: Ports) -> None:
    """Look at each that is pressed, the longest not seen first. The rest waits for the next look.

    Raises:
        OutageError: a store is away; what was not looked at is looked at first next time.
    """
    for account_id, entitlement_id in for_a_while(ports, ports.loads.pressed(_AT_ONCE), _FOR_S):
        with isolating_errors(f"scaling {account_id}/{entitlement_id}"):
            ports.loads.looked_at(account_id, entitlement_id)
            look_at(ports, account_id, entitlement_id)


def press_all(ports: Ports, account_id: str) -> None:
    """Have every live entitlement of an account looked at.

    Raises:
        InputError: ``unknown-tenant``: it has none.
        OutageError: a store is away; repeating is safe.
    """
    found = every(ports.documents, f"tenants/{account_id}/entitlements")
    bought = [Entitlement.stored(document.data) for document in found]
    live = [each for each in bought if each.state in ENTITLEMENT_LIVE]
    if not live:
        raise InputError("unknown-tenant", f"account {account_id} has no entitlement in use")
    for each in live:
        ports.loads.press(account_id, each.entitlement_id)


def look_at(ports: Ports, account_id: str, entitlement_id: str) -> Decision | None:
    """Sample one, decide its limit, have it changed; the decision, None where it is not live."""
    document = ports.documents.get(paths.entitlement_path(account_id, entitlement_id))
    if document is None or Entitlement.stored(document.data).state not in ENTITLEMENT_LIVE:
        ports.loads.rest(account_id, entitlement_id)
        return None
    entitlement = Entitlement.stored(document.data)
    try:
        policy = limits.policy_of(ports, entitlement)
    except PolicyError:  # who boots its governor alerts of that
        ports.loads.rest(account_id, entitlement_id)
        return None
    known = samples_of(ports, entitlement)
    sample = taken(ports, entitlement, known)
    history = history_of(ports, entitlement)[1]
    inputs = _inputs(ports, entitlement, policy, history, [*known, sample])
    decision = decide(inputs)
    needs = samples.remembered(sample.needs, Need(at=sample.at, need=decision.need))
    kept = sample.evolve(needs=needs)
    ports.loads.note_sample(account_id, entitlement_id, kept.model_dump_json(), samples.KEPT)
    if decision.limit != inputs.limit or decision.why in FORBIDDEN:
        _change(ports, document, inputs, decision)
    elif _is_at_rest(inputs, decision):
        ports.loads.rest(account_id, entitlement_id)
    return decision


def _change(ports: Ports, document: Document, inputs: Inputs, decision: Decision) -> None:
    """Begin the change; where it is forbidden, the run that says so."""
    entitlement = Entitlement.stored(document.data)
    account_id, entitlement_id = entitlement.account_id, entitlement.entitlement_id
    asked = Scaling(
        account_id=account_id,
        entitlement_id=entitlement_id,
        new_concurrency=decision.wanted if decision.why in FORBIDDEN else decision.limit,
        operator="system",
        decided_from=inputs,
    )
    # One for each state it is in: the run goes on or has changed that state; or in ten minutes.
    state = document.revision, inputs.backing_off_until or "", inputs.at[:15]
    key = paths.digest_id("lag", account_id, entitlement_id, *state)
    with contextlib.suppress(ConflictError):  # decided from older samples, it goes on
        ask(ports, asked, key)


def _is_at_rest(inputs: Inputs, decision: Decision) -> bool:
    """Whether nothing waits, is refused or can be taken back: the next refusal presses it again."""
    waits = decision.lag is not None and decision.lag.value != 0
    return inputs.limit <= inputs.floor and not inputs.refused_per_s and not waits


def _inputs(
    ports: Ports,
    entitlement: Entitlement,
    policy: Policy,
    history: History,
    known: list[Sample],
) -> Inputs:
    now, terms = ports.clock.now(), policy.quota
    month = quota.month_of(now)
    used = ports.governors.used(entitlement.account_id, entitlement.entitlement_id, month)
    readings = [reading for sample in known[-4:] for reading in sample.readings]
    return Inputs(
        **samples.demand_of(known, now).model_dump(),
        at=timestamp(now),
        limit=entitlement.concurrent_actions,
        floor=_floor(entitlement, policy, history),
        ceiling=max(terms.max_concurrent_actions, entitlement.concurrent_actions),
        readings=tuple(dict.fromkeys(readings)),
        in_flight=known[-1].in_flight,
        free_workers=free_workers(ports, known),
        month_left=quota.remaining(terms.monthly_actions, used),
        budget_left_usd=_budget_left(entitlement, policy, month),
        price_month_usd=terms.prices.concurrent_action_month_usd,
        changed_at=history.changes[-1] if history.changes else None,
        changes_last_hour=len(history.since(now, 3600)),
        backing_off_until=history.backing_off_until,
        paused_until=history.paused_until,
        needs=known[-1].needs,
    )


def _floor(entitlement: Entitlement, policy: Policy, history: History) -> int:
    """Where its plan lets it begin, or what an operator has set under that plan."""
    if not entitlement.limited_by:
        return policy.quota.concurrent_actions
    if history.commanded and history.commanded_plan == entitlement.plan_type:
        return history.commanded
    if not history.changes:  # an earlier release noted none: an operator set it
        return entitlement.concurrent_actions
    return policy.quota.concurrent_actions


def _budget_left(entitlement: Entitlement, policy: Policy, month: str) -> Decimal:
    spent = limits.spent(entitlement, policy, month)
    return max(Decimal(0), policy.quota.monthly_budget_usd - spent)


def free_workers(ports: Ports, known: Sequence[Sample]) -> int | None:
    """How many processes more could be at work; None: no worker is heard of.

    The most that were busy at once in the last ten seconds count: one look may fall between two
    actions. One in eight, and one where there are five, is left to other tenants.
    """
    workers = [
        each
        for each in ports.broadcasts.answers()
        if each.role == "actions" and each.ago_s < _HEARD_OF_S
    ]
    children = sum(each.children for each in workers)
    left = math.ceil(children / _LEFT_TO_OTHERS) if children >= _ENOUGH_TO_SHARE else 0
    busy = max(each.busy for each in known[-_LOOKS:])
    return max(0, children - left - busy) if children else None
