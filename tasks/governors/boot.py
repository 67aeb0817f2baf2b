"""Boot a governor: tell Memory what Documents know of it, so that admission can decide."""

from typing import Literal

from governor import paths
from governor.errors import PolicyError
from governor.fsm import (
    ENTITLEMENT_ENDED,
    ENTITLEMENT_LIVE,
    GOVERNOR_LIVE,
    EntitlementState,
    GovernorState,
)
from governor.tenancy import Entitlement, Tenant
from ports import Ports
from ports.documents import Document, Query
from ports.memory import Terms
from tasks.governors import policies
from tasks.receipts import troubles

_ABSENT = (EntitlementState.PROVISIONING, *ENTITLEMENT_ENDED)
"""The states in which admission knows nothing of an entitlement."""

Known = tuple[Document | None, list[Document]]


def boot_governor(ports: Ports, account_id: str) -> bool:
    """Tell Memory what Documents know of an account's governor; whether it may admit or refuse now.

    Of two boots at once that one stays whose reading began later. Documents are read again
    afterwards: who changed them meanwhile may have died before its own boot.
    """
    while True:
        ticket = ports.governors.begin_boot()
        before = _known(ports, account_id)
        admits = _boot(ports, account_id, ticket, *before)
        if admits is not None and _known(ports, account_id) == before:
            return admits


def _known(ports: Ports, account_id: str) -> Known:
    tenant = ports.documents.get(paths.tenant_path(account_id))
    return tenant, ports.documents.scan(Query(f"tenants/{account_id}/entitlements", limit=1000))


def _boot(
    ports: Ports,
    account_id: str,
    ticket: str,
    tenant: Document | None,
    entitlements: list[Document],
) -> bool | None:
    """Whether it may admit or refuse now; None where a later boot was here."""
    stored = Tenant.stored(tenant.data) if tenant else None
    if stored is None or stored.state is GovernorState.DECOMMISSIONED:
        return False if ports.governors.forget(account_id, ticket) else None
    bought = [e for d in entitlements if (e := Entitlement.stored(d.data)).state not in _ABSENT]
    # Memory already knows a governor that is still being provisioned; it admits nothing.
    admits = stored.state in GOVERNOR_LIVE and bool(bought)
    known_as = GovernorState.STABLE if admits else stored.state
    terms = [t for e in bought if (t := _usable_terms(ports, e)) is not None]
    is_new = ports.governors.boot(account_id, ticket, known_as, terms, stored.generation)
    for each in bought:
        if each.limited_by:  # it may fall again; Memory may just have been lost
            ports.loads.press(account_id, each.entitlement_id)
    return admits if is_new else None


def _usable_terms(ports: Ports, entitlement: Entitlement) -> Terms | None:
    """An entitlement's terms; None, and an alarm, when its policy cannot be used here.

    An unusable policy blocks no other entitlement, not even one of the same account.
    """
    try:
        return _terms(ports, entitlement)
    except PolicyError as error:
        troubles.policy_unusable(ports, error, entitlement.sku_id, entitlement.plan_type)
        return None


def _terms(ports: Ports, entitlement: Entitlement) -> Terms:
    policy = policies.load(
        ports, entitlement.sku_id, entitlement.plan_type, entitlement.policy_version
    )
    return Terms(
        entitlement_id=entitlement.entitlement_id,
        sku_id=entitlement.sku_id,
        plan_type=entitlement.plan_type,
        policy_version=entitlement.policy_version,
        concurrent_actions=entitlement.concurrent_actions,
        monthly_actions=entitlement.monthly_actions,
        signal_types=sorted(policy.route()),
        state=_resting(entitlement.state),
        refused_policy=entitlement.refused_policy or "",
    )


def _resting(state: EntitlementState) -> Literal["active", "suspended", "draining"]:
    if state in ENTITLEMENT_LIVE:
        return "active"
    return "suspended" if state is EntitlementState.SUSPENDED else "draining"
