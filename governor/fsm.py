"""The state machines of governors, entitlements, actions and runs, as tables (D23).

Each table maps (state, event) to the next state; whatever is not in it is illegal. The diagrams in
``docs/state-machines.md`` are drawn from the same tables and a test holds the two together.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from governor.errors import ConflictError

S = TypeVar("S", bound=StrEnum)


class GovernorState(StrEnum):
    """``stable``, ``executing`` and ``rolling_back`` are derived from the actions in flight."""

    PROVISIONING = "provisioning"
    STABLE = "stable"
    EXECUTING = "executing"
    ROLLING_BACK = "rolling_back"
    DEGRADED = "degraded"
    DRAINING = "draining"
    DECOMMISSIONED = "decommissioned"


class EntitlementState(StrEnum):
    """Where an entitlement is, as marketplaces know it; see ``ENTITLEMENT`` for the moves."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    PENDING_CANCELLATION = "pending_cancellation"
    SUSPENDED = "suspended"
    DRAINING = "draining"
    DECOMMISSIONED = "decommissioned"
    PURGED = "purged"


class ActionState(StrEnum):
    """Where an action is; see ``ACTION`` for the moves."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ROLLBACK_FAILED = "rollback_failed"


class RunState(StrEnum):
    """Where a run is; see ``RUN`` for the moves."""

    PENDING = "pending"
    RUNNING = "running"
    COMPENSATING = "compensating"
    PARKED = "parked"
    COMPLETE = "complete"
    FAILED = "failed"
    REFUSED = "refused"
    CANCELLED = "cancelled"


_G = GovernorState
_WORKING = (_G.STABLE, _G.EXECUTING, _G.ROLLING_BACK)

GOVERNOR: Mapping[tuple[GovernorState, str], GovernorState] = {
    (_G.PROVISIONING, "boot"): _G.STABLE,
    (_G.STABLE, "start"): _G.EXECUTING,
    (_G.EXECUTING, "settle"): _G.STABLE,
    (_G.STABLE, "undo"): _G.ROLLING_BACK,
    (_G.EXECUTING, "undo"): _G.ROLLING_BACK,
    (_G.ROLLING_BACK, "settle"): _G.STABLE,
    **{(state, "lose_store"): _G.DEGRADED for state in (_G.PROVISIONING, *_WORKING)},
    (_G.DEGRADED, "recover"): _G.STABLE,
    # An outage does not un-cancel anyone: draining has no way back to degraded or stable.
    **{(state, "cancel"): _G.DRAINING for state in (_G.PROVISIONING, *_WORKING, _G.DEGRADED)},
    (_G.DRAINING, "drained"): _G.DECOMMISSIONED,
}

_E = EntitlementState
_BOUGHT = (_E.ACTIVE, _E.PENDING_CANCELLATION, _E.SUSPENDED)
ENTITLEMENT: Mapping[tuple[EntitlementState, str], EntitlementState] = {
    (_E.PROVISIONING, "activate"): _E.ACTIVE,
    (_E.ACTIVE, "schedule_cancellation"): _E.PENDING_CANCELLATION,
    (_E.PENDING_CANCELLATION, "revert_cancellation"): _E.ACTIVE,
    (_E.ACTIVE, "suspend"): _E.SUSPENDED,
    (_E.PENDING_CANCELLATION, "suspend"): _E.SUSPENDED,
    (_E.SUSPENDED, "reinstate"): _E.ACTIVE,
    (_E.SUSPENDED, "reinstate_until_cancelled"): _E.PENDING_CANCELLATION,
    **{(state, "cancel"): _E.DRAINING for state in (_E.PROVISIONING, *_BOUGHT)},
    (_E.DRAINING, "drained"): _E.DECOMMISSIONED,
    (_E.DECOMMISSIONED, "purge"): _E.PURGED,
    (_E.DECOMMISSIONED, "resubscribe"): _E.PROVISIONING,
    (_E.PURGED, "resubscribe"): _E.PROVISIONING,
}

_A = ActionState
ACTION: Mapping[tuple[ActionState, str], ActionState] = {
    (_A.PENDING, "claim"): _A.RUNNING,
    (_A.PENDING, "expire"): _A.FAILED,
    (_A.RUNNING, "succeed"): _A.COMPLETE,
    (_A.RUNNING, "deadline"): _A.TIMED_OUT,
    (_A.RUNNING, "error"): _A.FAILED,
    (_A.TIMED_OUT, "undo"): _A.ROLLING_BACK,
    (_A.TIMED_OUT, "nothing_to_undo"): _A.FAILED,
    (_A.FAILED, "undo"): _A.ROLLING_BACK,
    (_A.ROLLING_BACK, "undone"): _A.ROLLED_BACK,
    (_A.ROLLING_BACK, "undo_failed"): _A.ROLLBACK_FAILED,
    (_A.ROLLBACK_FAILED, "retry"): _A.ROLLING_BACK,
    (_A.ROLLBACK_FAILED, "resolve"): _A.FAILED,
}

_R = RunState
RUN: Mapping[tuple[RunState, str], RunState] = {
    (_R.PENDING, "claim"): _R.RUNNING,
    (_R.RUNNING, "finish"): _R.COMPLETE,
    (_R.PENDING, "fail"): _R.COMPENSATING,
    (_R.RUNNING, "fail"): _R.COMPENSATING,
    (_R.COMPENSATING, "undone_for_good"): _R.REFUSED,
    (_R.COMPENSATING, "undone_for_now"): _R.FAILED,
    (_R.COMPENSATING, "undone_on_request"): _R.CANCELLED,
    (_R.COMPENSATING, "park"): _R.PARKED,
    (_R.PARKED, "retry"): _R.COMPENSATING,
    (_R.FAILED, "redeliver"): _R.PENDING,
}

TABLES: Mapping[str, Mapping[tuple[StrEnum, str], StrEnum]] = {
    "governor": {(s, e): t for (s, e), t in GOVERNOR.items()},
    "entitlement": {(s, e): t for (s, e), t in ENTITLEMENT.items()},
    "action": {(s, e): t for (s, e), t in ACTION.items()},
    "run": {(s, e): t for (s, e), t in RUN.items()},
}


def advance(table: Mapping[tuple[S, str], S], state: S, *events: str) -> S:
    """The state after ``events``, taken one after the other.

    Raises:
        ConflictError: an event is not legal in the state it met; nothing was changed.
    """
    for event in events:
        target = table.get((state, event))
        if target is None:
            raise ConflictError("illegal-transition", f"{event!r} is not legal in state {state!r}")
        state = target
    return state


def derived_governor_state(in_flight: int, rolling_back: int) -> GovernorState:
    """What a booted governor is doing, from the number of its actions under way (D23)."""
    if rolling_back > 0:
        return GovernorState.ROLLING_BACK
    return GovernorState.EXECUTING if in_flight > 0 else GovernorState.STABLE


def diagram(name: str) -> str:
    """A Mermaid state diagram of one table, as ``docs/state-machines.md`` contains it."""
    lines = [f"    {s} --> {t}: {event}" for (s, event), t in TABLES[name].items()]
    return "\n".join(["stateDiagram-v2", *lines])


GOVERNOR_LIVE = (GovernorState.STABLE, GovernorState.DEGRADED)
"""The stored states in which a governor may admit."""

ENTITLEMENT_LIVE = (EntitlementState.ACTIVE, EntitlementState.PENDING_CANCELLATION)
"""The states in which an entitlement admits signals."""

ENTITLEMENT_BOUGHT = _BOUGHT
"""The states in which a customer has it, whether or not it admits."""

ENTITLEMENT_ENDED = (EntitlementState.DECOMMISSIONED, EntitlementState.PURGED)
"""The states in which nothing of it is left but documents and receipts."""

RUN_ACTING = (RunState.PENDING, RunState.RUNNING)
"""The states in which a run acts."""

RUN_UNDOING = (RunState.COMPENSATING, RunState.PARKED)
"""The states in which a run is being undone."""

RUN_OPEN = (*RUN_ACTING, *RUN_UNDOING)
"""The states a run does not end in."""

RUN_ENDED_BADLY = (RunState.FAILED, RunState.REFUSED, RunState.CANCELLED)
"""The states a run ends in with nothing of it left."""
