"""A governor's limit of actions at once: whose it is, what a change costs, and what forbids it."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from governor import quota
from governor.errors import ConflictError, DeniedError, InputError
from governor.fsm import ENTITLEMENT_BOUGHT
from governor.policy import Policy
from governor.runs import Run
from governor.scaling.cost import cost_delta_usd
from governor.scaling.decision import Inputs, decide
from governor.tenancy import Entitlement
from ports import Ports
from ports.documents import every
from tasks.governors import policies


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Which limit a change would be beyond; ``unit`` is that of both numbers."""

    limit: str
    requested: float
    allowed: float
    unit: Literal["actions at once", "actions a month", "usd"]


def the_entitlement(ports: Ports, account_id: str, entitlement_id: str | None) -> Entitlement:
    """The entitlement that is meant.

    Raises:
        InputError: ``not-found``: the account has none, or none of that id.
        ConflictError: ``ambiguous``: it has several, and none was named.
        DeniedError: ``not-active``: it is not in use.
    """
    found = every(ports.documents, f"tenants/{account_id}/entitlements")
    stored = [Entitlement.stored(document.data) for document in found]
    bought = [e for e in stored if entitlement_id in (None, e.entitlement_id)]
    if entitlement_id is None:
        bought = [e for e in bought if e.state in ENTITLEMENT_BOUGHT] or bought
    if not bought:
        what = f"entitlement {entitlement_id}" if entitlement_id else "entitlement"
        raise InputError("not-found", f"account {account_id} has no {what}; nothing was changed")
    if len(bought) > 1:
        names = ", ".join(e.entitlement_id for e in bought[:5])
        raise ConflictError("ambiguous", f"name one by --entitlement: {names}")
    if bought[0].state not in ENTITLEMENT_BOUGHT:
        raise DeniedError("not-active", f"it is {bought[0].state}; nothing was changed")
    return bought[0]


def exceeded(
    ports: Ports, entitlement: Entitlement, policy: Policy, wanted: int
) -> Exceeded | None:
    """What a limit would be beyond: the plan, the month, or the budget."""
    terms, now = policy.quota, ports.clock.now()
    if wanted <= entitlement.concurrent_actions:
        return None
    if wanted > terms.max_concurrent_actions:
        allowed = terms.max_concurrent_actions
        return Exceeded("max_concurrent_actions", wanted, allowed, "actions at once")
    month = quota.month_of(now)
    used = ports.governors.used(entitlement.account_id, entitlement.entitlement_id, month)
    if used >= terms.monthly_actions:
        return Exceeded("monthly_actions", used, terms.monthly_actions, "actions a month")
    total = spent(entitlement, policy, month) + cost_of(entitlement, policy, wanted, ports)
    if total > terms.monthly_budget_usd:
        allowed_usd = float(terms.monthly_budget_usd)
        return Exceeded("monthly_budget_usd", float(total), allowed_usd, "usd")
    return None


NO_CAPACITY = (
    "a governor needs more actions at once, and no process of the actions workers is free for it "
    "(one in eight is left to other tenants): its limit stays, and its signals are refused "
    "meanwhile. Start more workers, or raise GGEN_ACTIONS_CONCURRENCY; deploy/keda/ has files that "
    "add them by themselves"
)


def beyond_capacity(inputs: Inputs | None, wanted: int) -> Exceeded | None:
    """Whether the system itself wants more than free workers could serve; an operator may."""
    if inputs is None or wanted <= inputs.limit or decide(inputs).why != "capacity":
        return None
    return Exceeded("capacity", wanted, inputs.limit, "actions at once")


def cost_of(entitlement: Entitlement, policy: Policy, wanted: int, ports: Ports) -> Decimal:
    """What a limit costs until the month ends, beside the one in force."""
    price = policy.quota.prices.concurrent_action_month_usd
    return cost_delta_usd(entitlement.concurrent_actions, wanted, price, ports.clock.now())


def warnings(ports: Ports, entitlement: Entitlement, wanted: int) -> list[str]:
    """What may keep a higher limit from helping."""
    previous = entitlement.concurrent_actions
    in_flight = ports.governors.in_flight(entitlement.account_id, [entitlement.entitlement_id])
    return ["not-binding"] if wanted > previous and in_flight < 0.8 * previous else []


def policy_of(ports: Ports, entitlement: Entitlement) -> Policy:
    """The policy that an entitlement is under."""
    plan = entitlement.sku_id, entitlement.plan_type, entitlement.policy_version
    return policies.load(ports, *plan)


def spent(entitlement: Entitlement, policy: Policy, month: str) -> Decimal:
    """What changes of the limit cost in a month; one begins with what was raised before it."""
    if entitlement.scaling_month == month:
        return entitlement.scaling_usd
    above = max(0, entitlement.concurrent_actions - policy.quota.concurrent_actions)
    return above * policy.quota.prices.concurrent_action_month_usd


def limited(
    entitlement: Entitlement, policy: Policy, limit: int, run: Run, ports: Ports
) -> tuple[Entitlement, Decimal]:
    """The entitlement with another limit, and what that costs it until the month ends."""
    month = quota.month_of(ports.clock.now())
    cost_usd = cost_of(entitlement, policy, limit, ports)
    after = entitlement.evolve(
        concurrent_actions=limit,
        limited_by=run.run_id,
        scaling_month=month,
        scaling_usd=spent(entitlement, policy, month) + cost_usd,
    )
    return after, cost_usd
