"""The seven runbooks: what each does, step by step; no mechanism. Their numbers are the contract's.

1 deploy_sku, 2 upgrade_policy, 3 scale_governor, 4 degrade_to_safe_mode, 5 recover_action,
6 entitlement_lifecycle and entitlement_standing, 7 customer_cancels, and tenant_purge after it.
"""

from tasks import links
from tasks.runbooks import (
    customer_cancels,
    degrade_to_safe_mode,
    entitlement_lifecycle,
    entitlement_standing,
    recover_action,
    scale_governor,
    tenant_purge,
    upgrade_policy,
)
from tasks.runs.definition import Runbooks

__all__ = ["RUNBOOKS", "degrade_to_safe_mode", "entitlement_lifecycle", "recover_action"]

RUNBOOKS: Runbooks = {
    each.name: each
    for each in (
        entitlement_lifecycle.RUNBOOK,
        entitlement_standing.RUNBOOK,
        customer_cancels.RUNBOOK,
        tenant_purge.RUNBOOK,
        tenant_purge.EVENT_RUNBOOK,
        upgrade_policy.RUNBOOK,
        scale_governor.RUNBOOK,
    )
}
"""The runbooks whose runs are kept and journalled."""

links.register(RUNBOOKS)
links.register_former(f"{entitlement_lifecycle.NAME}.run", RUNBOOKS)
