"""The receipt contracts: what each operation states, field by field (D12, D14; spec).

One pydantic model per operation and version. A receipt says its version in ``contract_version``;
one that does not is of the first. Old versions stay for ever: receipts are never written again.
``ggen schema`` publishes the JSON Schemas. A field the spec names is spelt as the spec spells it.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any, get_args

from pydantic import ValidationError

from governor.errors import InputError
from ledger.contracts import action, decommission, governor, lifecycle, platform
from ledger.contracts.base import Receipt

_VERSIONS: tuple[tuple[type[Receipt], ...], ...] = (
    (lifecycle.EntitlementActiveV1, lifecycle.EntitlementActive),
    (lifecycle.EntitlementFailedV1, lifecycle.EntitlementFailed),
    (lifecycle.EntitlementPlanChangedV1, lifecycle.EntitlementPlanChanged),
    (lifecycle.EntitlementSuspended,),
    (lifecycle.EntitlementReinstated,),
    (lifecycle.EntitlementRenewed,),
    (lifecycle.EntitlementCancellationScheduled,),
    (lifecycle.EntitlementCancellationReverted,),
    (lifecycle.EventIgnored,),
    (decommission.DecommissionStartV1, decommission.DecommissionStart),
    (decommission.DecommissionCompleteV1, decommission.DecommissionComplete),
    (
        decommission.DecommissionFailedV1,
        decommission.DecommissionFailedV2,
        decommission.DecommissionFailed,
    ),
    (governor.PolicyUpgradedV1, governor.PolicyUpgraded),
    (governor.PolicyBroadcast,),
    (governor.PolicyBaked,),
    (governor.PolicyValidationFailedV1, governor.PolicyValidationFailed),
    (governor.PolicyUpgradeSkippedV1, governor.PolicyUpgradeSkipped),
    (governor.PolicyRollbackV1, governor.PolicyRollback),
    (governor.PolicyForcedV1, governor.PolicyForced),
    (governor.GovernorScaledV1, governor.GovernorScaled),
    (governor.GovernorScaleRevertedV1, governor.GovernorScaleReverted),
    (governor.GovernorScaleVerified,),
    (governor.GovernorScaleFailed,),
    (governor.GovernorScalingPaused,),
    (governor.GovernorScalingResumed,),
    (governor.QuotaExceededV1, governor.QuotaExceeded),
    (governor.DegradedModeV1, governor.DegradedMode),
    (governor.DegradedModeClearedV1, governor.DegradedModeCleared),
    (action.ActionCompleteV1, action.ActionComplete),
    (action.ActionTimeoutV1, action.ActionTimeout),
    (action.ActionFailedV1, action.ActionFailed),
    (action.ActionRolledBackV1, action.ActionRolledBack),
    (action.RollbackFailedV1, action.RollbackFailed),
    (action.ActionResolvedV1, action.ActionResolved),
    (platform.WebhookRejected,),
    (platform.SignalsRefused,),
    (platform.AlertRaisedV1, platform.AlertRaised),
    (platform.CompensationFailedV1, platform.CompensationFailed),
    (platform.ReceiptConflict,),
    (platform.RunCancelledV1, platform.RunCancelled),
    (platform.KeyRotated,),
    (platform.StoreRestored,),
    (platform.TenantPurgedV1, platform.TenantPurged),
    (platform.PurgeFailed,),
    (platform.SignalDeadLetteredV1, platform.SignalDeadLettered),
)


def _operation(model: type[Receipt]) -> str:
    return str(get_args(model.model_fields["operation"].annotation)[0])


VERSIONS: Mapping[str, Mapping[int, type[Receipt]]] = {
    _operation(models[0]): dict(enumerate(models, 1)) for models in _VERSIONS
}
"""Operation -> version -> its contract."""

MODELS: Mapping[str, type[Receipt]] = {
    operation: versions[max(versions)] for operation, versions in VERSIONS.items()
}
"""Operation -> the contract of receipts made now."""


def newest(operation: str) -> int:
    """The version of receipts made now. Raises InputError for an unknown operation."""
    if operation not in VERSIONS:
        raise InputError("unknown-operation", f"{operation!r} is no operation with a contract")
    return max(VERSIONS[operation])


def validate(fields: dict[str, Any], *, strict: bool = False) -> Receipt:
    """The contract these fields fulfil; ``strict``: as they stand, with nothing converted.

    Raises:
        InputError: an unknown operation or version, or a field is missing, unknown or out of
            bounds; each fault is named.
    """
    operation, version = fields.get("operation"), fields.get("contract_version", 1)
    versions = VERSIONS.get(operation) if isinstance(operation, str) else None
    if versions is None:
        raise InputError("contract-broken", f"operation: {str(operation)[:64]!r} is unknown")
    model = versions.get(version) if type(version) is int else None
    if model is None:
        raise InputError("contract-broken", f"contract_version: {version!r} is unknown"[:256])
    try:
        return model.model_validate(fields, strict=strict)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, f['loc'])) or 'receipt'}: {f['msg']}"
            for f in error.errors(include_url=False, include_input=False)[:10]
        )
        raise InputError("contract-broken", faults) from None


@cache
def schemas() -> dict[str, dict[int, dict[str, Any]]]:
    """Operation -> version -> JSON Schema (draft 2020-12) of its receipt; not to be changed."""
    return {
        operation: {version: model.model_json_schema() for version, model in versions.items()}
        for operation, versions in sorted(VERSIONS.items())
    }


__all__ = ["MODELS", "VERSIONS", "Receipt", "newest", "schemas", "validate"]
