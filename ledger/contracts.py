"""The receipt contracts: what each operation states, field by field (D12, D14; spec).

One pydantic model per operation, all of them in ``Contract``. ``ggen schema`` publishes their JSON
Schemas. A field the spec names is spelt as the spec spells it.
"""

from typing import Annotated, Any, get_args

from pydantic import Field, TypeAdapter, ValidationError

from governor.errors import InputError
from ledger.contract_base import Receipt
from ledger.contracts_action import (
    ActionComplete,
    ActionFailed,
    ActionRolledBack,
    ActionTimeout,
    RollbackFailed,
)
from ledger.contracts_governor import (
    DegradedMode,
    DegradedModeCleared,
    GovernorScaled,
    GovernorScaleReverted,
    PolicyForced,
    PolicyRollback,
    PolicyUpgraded,
    PolicyUpgradeSkipped,
    PolicyValidationFailed,
    QuotaExceeded,
)
from ledger.contracts_lifecycle import (
    DecommissionComplete,
    DecommissionFailed,
    DecommissionStart,
    EntitlementActive,
    EntitlementFailed,
    EntitlementPlanChanged,
)
from ledger.contracts_platform import (
    AlertRaised,
    CompensationFailed,
    KeyRotated,
    ReceiptConflict,
    RunCancelled,
    SignalDeadLettered,
    SignalsRefused,
    TenantPurged,
    WebhookRejected,
)

Contract = Annotated[
    EntitlementActive
    | EntitlementFailed
    | EntitlementPlanChanged
    | PolicyUpgraded
    | PolicyValidationFailed
    | PolicyUpgradeSkipped
    | PolicyRollback
    | PolicyForced
    | GovernorScaled
    | GovernorScaleReverted
    | QuotaExceeded
    | DegradedMode
    | DegradedModeCleared
    | ActionComplete
    | ActionTimeout
    | ActionFailed
    | ActionRolledBack
    | RollbackFailed
    | DecommissionStart
    | DecommissionComplete
    | DecommissionFailed
    | WebhookRejected
    | SignalsRefused
    | AlertRaised
    | CompensationFailed
    | ReceiptConflict
    | RunCancelled
    | KeyRotated
    | TenantPurged
    | SignalDeadLettered,
    Field(discriminator="operation"),
]

MODELS: dict[str, type[Receipt]] = {
    get_args(model.model_fields["operation"].annotation)[0]: model
    for model in get_args(get_args(Contract)[0])
}
"""Operation -> its contract."""

_CONTRACT: TypeAdapter[Receipt] = TypeAdapter(Contract)


def validate(fields: dict[str, Any]) -> Receipt:
    """The contract these fields fulfil.

    Raises:
        InputError: an unknown operation, or a field is missing, unknown or out of bounds; each
            fault is named.
    """
    try:
        return _CONTRACT.validate_python(fields)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, f['loc'][1:] or f['loc'])) or 'receipt'}: {f['msg']}"
            for f in error.errors(include_url=False, include_input=False)[:10]
        )
        raise InputError("contract-broken", faults) from None


def schemas() -> dict[str, dict[str, Any]]:
    """Operation -> JSON Schema (draft 2020-12) of its receipt."""
    return {name: model.model_json_schema() for name, model in sorted(MODELS.items())}


__all__ = ["MODELS", "Contract", "Receipt", "schemas", "validate"]
