"""The contract's SLIs, runbook by runbook (spec; D11 and D28 make them unambiguous).

A latency is met by 99 % of the events of 30 days, unless the contract says 100 %.
"""

import math
from collections.abc import Mapping

from governor.slo.objective import Match, Objective

_ENDED = tuple(map(Match, ("entitlement_active", "entitlement_plan_changed")))
_ACTED = {"failed_step": "deploy_sku.*"}

DEPLOY_SKU = (
    Objective(
        "deploy_sku_receipt",
        "webhook to receipt",
        "< 2 s",
        _ENDED,
        value="duration_ms",
        below=2_000,
    ),
    Objective(
        "deploy_sku_ready",
        "webhook to a governor ready for signals (admission finds it with its receipt)",
        "< 3 s",
        _ENDED,
        value="duration_ms",
        below=3_000,
    ),
    Objective(
        "deploy_sku_resources",
        "FSM, topic and documents created: all of them, or none and a receipt that says so",
        "100 %",
        _ENDED,
        bad=(Match("compensation_failed", _ACTED),),
        target=1,
    ),
)

UPGRADE_POLICY = (
    Objective(
        "upgrade_policy_broadcast",
        "a version in force until the last process that listens has answered",
        "< 500 ms",
        (Match("policy_broadcast"),),
        value="broadcast_ms",
        below=500,
    ),
    Objective(
        "upgrade_policy_reload",
        "processes that cannot use a version before they are restarted",
        "none",
        (Match("policy_broadcast"),),
        value="processes_nacked",
        below=1,
        target=1,
    ),
    Objective(
        "upgrade_policy_check",
        "compatibility check",
        "< 100 ms",
        (Match("policy_broadcast"), Match("policy_upgrade_skipped")),
        value="check_ms",
        below=100,
    ),
)

SCALE_GOVERNOR = (
    Objective(
        "scale_governor_applied",
        "decision to applied",
        "< 100 ms",
        (Match("governor_scaled"),),
        value="duration_ms",
        below=100,
    ),
    Objective(
        "scale_governor_lag",
        "lag reduced within 5 min of a raise (looked at after one minute)",
        "< 5 min",
        (Match("governor_scale_verified", {"trigger": "lag", "verdict": "better"}),),
        bad=(
            Match("governor_scale_verified", {"trigger": "lag", "verdict": "same"}),
            Match("governor_scale_reverted", {"trigger": "lag"}),
        ),
    ),
)

DEGRADE_TO_SAFE_MODE = (
    Objective(
        "safe_mode_entered",
        "first failed check to degraded (a fault begins at most 10 s before that check)",
        "< 25 s",
        (Match("degraded_mode", {"account_id": "_system"}),),
        value="detected_ms",
        below=25_000,
    ),
    Objective(
        "safe_mode_left",
        "start of the good check that ends it to normal (checks begin each 2 s meanwhile)",
        "< 8 s",
        (Match("degraded_mode_cleared", {"account_id": "_system"}),),
        value="recovery_ms",
        below=8_000,
    ),
    Objective(
        "safe_mode_refuses",
        "actions accepted while degraded",
        "none",
        (Match("degraded_mode_cleared", {"account_id": "_system"}),),
        value="actions_accepted",
        below=1,
        target=1,
    ),
)

RECOVER_ACTION = (
    Objective(
        "recover_action_deadline",
        "deadline: at most 5 ms late",
        "500 ms",
        (Match("action_timeout", {"phase": "running", "error_code": "DEADLINE_EXCEEDED"}),),
        value="run_ms",
        less="timeout_ms",
        least=-math.inf,  # where the deadline counts from the submission the queue is taken off
        below=6,
    ),
    Objective(
        "recover_action_rollback",
        "rollback",
        "< 100 ms",
        (Match("action_rolled_back"),),
        value="rollback_duration_ms",
        below=100,
    ),
    Objective(
        "recover_action_consistency",
        "actions that end consistently: each failed rollback is a miss, though it is tried again",
        "100 %",
        tuple(
            map(Match, ("action_complete", "action_timeout", "action_failed", "action_rolled_back"))
        ),
        bad=(Match("rollback_failed"),),
        target=1,
    ),
)

ENTITLEMENT_LIFECYCLE = (
    Objective(
        "entitlement_ready",
        "webhook to governor ready",
        "< 3 s",
        _ENDED,
        value="duration_ms",
        below=3_000,
    ),
    Objective(
        "entitlement_policy",
        "policy application (found and checked)",
        "< 100 ms",
        _ENDED,
        value="policy_ms",
        below=100,
    ),
    Objective(
        "entitlement_signal",
        "a signal, the first one too, accepted until its action has ended",
        "< 1 s",
        (Match("action_complete"),),
        bad=(Match("action_timeout", {"error_code": "QUEUE_TIMEOUT"}),),
        value="duration_ms",
        below=1_000,
    ),
)

ENTITLEMENT_STANDING = (
    Objective(
        "entitlement_standing_receipt",
        "webhook to receipt",
        "< 2 s",
        tuple(
            map(
                Match,
                (
                    "entitlement_suspended",
                    "entitlement_reinstated",
                    "entitlement_renewed",
                    "entitlement_cancellation_scheduled",
                    "entitlement_cancellation_reverted",
                ),
            )
        ),
        value="duration_ms",
        below=2_000,
    ),
)

CUSTOMER_CANCELS = (
    Objective(
        "customer_cancels_shutdown",
        "cancellation to shutdown",
        "< 2 s",
        (Match("decommission_start"),),
        value="duration_ms",
        below=2_000,
    ),
    Objective(
        "customer_cancels_drain",
        "actions in flight: ended by themselves, or explicitly after 30 s",
        "< 31 s",
        (Match("decommission_complete"),),
        value="drain_ms",
        below=31_000,
    ),
    Objective(
        "customer_cancels_archive",
        "archive written, read back, verified (10,000 receipts)",
        "< 5 s",
        (Match("decommission_complete"),),
        value="archive_ms",
        below=5_000,
    ),
    Objective(
        "customer_cancels_total",
        "total",
        "< 40 s",
        (Match("decommission_complete"),),
        value="duration_ms",
        below=40_000,
    ),
)

OBJECTIVES: Mapping[str, Objective] = {
    each.name: each
    for runbook in (
        DEPLOY_SKU,
        UPGRADE_POLICY,
        SCALE_GOVERNOR,
        DEGRADE_TO_SAFE_MODE,
        RECOVER_ACTION,
        ENTITLEMENT_LIFECYCLE,
        ENTITLEMENT_STANDING,
        CUSTOMER_CANCELS,
    )
    for each in runbook
}
"""Name -> objective."""

BY_OPERATION: Mapping[str, tuple[Objective, ...]] = {
    operation: tuple(each for each in OBJECTIVES.values() if operation in each.operations)
    for operation in sorted({name for each in OBJECTIVES.values() for name in each.operations})
}
"""Operation -> the objectives that its receipts may be events of."""

EACH_COUNTS = (
    "rollback_failed",
    "compensation_failed",
    "decommission_failed",
    "receipt_conflict",
)
"""Operations of which a single receipt alerts, however much budget is left."""
