"""What a change of a limit is asked for with, and what its steps tell each other."""

from decimal import Decimal
from typing import Any

from pydantic import Field

from governor.records import AccountId, EntitlementId, Record, Timestamp
from governor.runs import Run, StepResult
from governor.scaling.decision import Inputs
from governor.scaling.readings import Reading
from governor.tenancy import Entitlement

NAME = "scale_governor"


class Scaling(Record):
    """What an operator, or the system by itself, asks for."""

    account_id: AccountId = Field(description="whose governor")
    entitlement_id: EntitlementId = Field(description="which of its entitlements")
    new_concurrency: int = Field(ge=1, le=10_000, description="how many actions at once")
    quota_check: bool = Field(
        default=True, description="refuse what plan, month or budget do not allow"
    )
    operator: str = Field(min_length=1, max_length=256, description="the system's user")
    reason: str = Field(
        default="", max_length=1024, description="why; needed without `quota_check`"
    )
    decided_from: Inputs | None = Field(
        default=None, description="what the system decided from; absent where an operator asks"
    )

    @property
    def trigger(self) -> str:
        """What it was asked for by."""
        return "lag" if self.decided_from else "command"


class Decided(StepResult):
    """What a change was decided from."""

    step = f"{NAME}.decide"

    previous: int
    sku_id: str
    plan_type: str
    policy_version: str
    commanded: int | None = None
    lag: Reading
    why: str | None = None
    warnings: list[str]

    def still_holds(self, entitlement: Entitlement, limit: int) -> bool:
        """Whether an entitlement has that limit, and the policy that was decided by."""
        return (
            entitlement.concurrent_actions,
            entitlement.sku_id,
            entitlement.plan_type,
            entitlement.policy_version,
        ) == (limit, self.sku_id, self.plan_type, self.policy_version)


class Applied(StepResult):
    """The receipt of the change, and when it was made."""

    step = f"{NAME}.apply"

    receipt_id: str
    applied_at: Timestamp


def fields_of(
    run: Run, entitlement: Entitlement, previous: int, new: int, cost_usd: Decimal
) -> dict[str, Any]:
    """What each receipt of a change says of it."""
    return {
        "attempt": run.attempt,
        "run_id": run.run_id,
        "sku_id": entitlement.sku_id,
        "entitlement_id": entitlement.entitlement_id,
        "policy_version": entitlement.policy_version,
        "concurrency": {"previous": previous, "new": new},
        "cost_delta_usd": float(cost_usd),
        "cost_basis": "reservation",
    }
