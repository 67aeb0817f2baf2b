"""An action, and what its end means: rules that the worker and the reaper both obey (D9-D19)."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import Field

from governor.errors import (
    ActionError,
    GovernorError,
    RecoverableError,
    RejectedError,
    UnrecoverableError,
)
from governor.fsm import ACTION, ActionState, advance
from governor.records import (
    EventId,
    OfEntitlement,
    PlanType,
    ProcessClaim,
    Record,
    SemVer,
    SignalType,
    Timestamp,
)
from governor.times import elapsed_ms

DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
WORKER_LOST = "WORKER_LOST"
"""The code of an action that was stopped at its deadline."""

QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
"""The code of an action that was not started in time."""

DRAINED = "DRAINED"
"""The code of an action that was stopped because its entitlement was cancelled."""

HARD_LIMIT_MARGIN_MS = 3_000
"""How long after both deadlines a child that still hangs is killed (D9)."""

SLOT_MARGIN_MS = 500
"""How long after the hard limit the slot's deadline lies, so that the kill comes first (D10)."""

FIRST_LOOK_MS = 2_000
"""How long after its admission the reaper looks at an unclaimed action: was its message lost?"""

UNSTORED_MS = 15_000
"""How long an admitted action may take to be stored before its slot is taken away again."""

ORPHANED_AFTER_MS = 10_000
"""How far past every age it may reach an action is overdue."""

STORED_MS = 250
"""How long after its admission most are stored; one that took longer makes sure it is counted."""

MAX_ERROR_DETAIL_CHARS = 512
"""Bound of a handler's own words in an action."""

MAX_ROLLBACK_MS = 30_000
"""Longest a rollback that keeps failing is given."""

MAX_RESULT_BYTES = 4096
"""Bound of what a handler returns, and of what a failed one learned."""

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
UNDER_WAY = (
    ActionState.PENDING,
    ActionState.RUNNING,
    ActionState.ROLLING_BACK,
    ActionState.ROLLBACK_FAILED,
)
"""The states an action does not stay in; all but the last hold a slot."""

_RETRY_BASE_S, _RETRY_MAX_S = 1.0, 300.0


class Resolution(Record):
    """An operator's word that a failed rollback was dealt with by hand."""

    operator: str = Field(min_length=1, max_length=256)
    reason: str = Field(min_length=1, max_length=1024)
    resolved_at: Timestamp


class Action(OfEntitlement):
    """``tenants/{account_id}/actions/{action_id}``: one signal being acted on.

    Limits and handler are copied from the policy at admission, so that an action never changes
    its rules on the way.
    """

    action_id: str
    signal_id: EventId
    signal_type: SignalType
    signal_sha256: str
    payload: str = Field(description="canonical JSON of the signal's payload, an object")
    handler: str = Field(description="its name; of one by HTTP, the action's in its policy")
    execute_url: str | None = None
    rollback_url: str | None = None
    plan_type: PlanType | None = None
    dispatch_weight: int = Field(
        default=1, description="its tenant's share of turns, by its policy"
    )
    policy_version: SemVer
    policy_digest: str | None = Field(default=None, description="not of earlier releases")
    timeout_ms: int
    rollback_timeout_ms: int
    queue_timeout_ms: int
    recoverable: bool
    deadline_from_submit: bool
    state: ActionState = ActionState.PENDING
    accepted_at: Timestamp
    month: str
    claim: ProcessClaim | None = None
    ended_at: Timestamp | None = None
    queue_ms: int | None = None
    run_ms: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    failure_receipt_id: str | None = None
    has_rollback: bool | None = Field(
        default=None,
        description="false: nothing to undo was declared; None: release 0.1.0 asked not",
    )
    is_alerted: bool | None = Field(
        default=None, description="whether its failing rollback was alerted; None: by release 0.1.0"
    )
    is_counted: bool = Field(
        default=True, description="whether its end says anything of its policy's version"
    )
    result: str | None = Field(default=None, description="canonical JSON the handler returned")
    learned: str | None = Field(default=None, description="canonical JSON a failed handler learned")
    resolution: Resolution | None = None
    rollback_attempts: int = 0
    retry_at: Timestamp | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """How a handler ended badly: where the action goes, and which receipt says so."""

    state: ActionState
    operation: str
    error_code: str
    error_detail: str
    rollback: Literal["due", "none", "impossible"]
    is_recoverable: bool = True
    is_counted: bool = True

    @property
    def rolls_back(self) -> bool:
        """Whether the action is rolled back."""
        return self.rollback == "due"


def hard_limit_ms(action: Action) -> int:
    """From the handler's start to the kill of its child, for a handler that will not stop."""
    return action.timeout_ms + rollback_limit_ms(action, more=1) + HARD_LIMIT_MARGIN_MS


def rollback_limit_ms(action: Action, *, more: int = 0) -> int:
    """The time of the next rollback: the policy's, twice as long after each attempt, to 30 s."""
    is_undone = action.state in (ActionState.ROLLING_BACK, ActionState.ROLLBACK_FAILED)
    attempts = action.rollback_attempts + (more if is_undone else 0)
    longest = max(MAX_ROLLBACK_MS, action.rollback_timeout_ms)
    return min(longest, action.rollback_timeout_ms << min(attempts, 16))


def look_in_ms(action: Action) -> int:
    """From a claim to the reaper's look at it: no process should run the action by then (D10)."""
    return hard_limit_ms(action) + SLOT_MARGIN_MS


def queued_look_in_ms(action: Action, age_ms: int) -> int:
    """When to look again at an unclaimed action: each time it is twice as old, at most."""
    return max(1, min(max(FIRST_LOOK_MS, age_ms), action.queue_timeout_ms - age_ms))


def undo_rest_ms(action: Action, now: datetime) -> int:
    """How long an undo that is due rests once handed out: twice as long each time, to 5 minutes."""
    due = action.retry_at or (action.claim.claimed_at if action.claim else action.accepted_at)
    rest_ms = max(round(retry_after_s(action.rollback_attempts) * 1000), elapsed_ms(due, now))
    return round(min(max(FIRST_LOOK_MS, rest_ms), _RETRY_MAX_S * 1000))


def is_overdue(action: Action, now: datetime) -> bool:
    """Whether an action is past every age its state may reach."""
    match action.state:
        case ActionState.PENDING:
            due, rest_ms = action.accepted_at, action.queue_timeout_ms
        case ActionState.RUNNING | ActionState.ROLLING_BACK if action.claim:
            rest_ms = round(retry_after_s(action.rollback_attempts) * 1000)
            due, rest_ms = action.claim.claimed_at, look_in_ms(action) + rest_ms
        case ActionState.ROLLBACK_FAILED if action.retry_at:
            due, rest_ms = action.retry_at, 0
        case _:
            return False
    return elapsed_ms(due, now) > rest_ms + ORPHANED_AFTER_MS


def timed_out(action: Action) -> Failure:
    """The deadline fired: rolled back (spec, Runbook 5), unless there is nothing to undo (D28)."""
    has_rollback = action.has_rollback is not False
    after = "undo" if has_rollback else "nothing_to_undo"
    return Failure(
        state=advance(ACTION, ActionState.RUNNING, "deadline", after),
        operation="action_timeout",
        error_code=DEADLINE_EXCEEDED,
        error_detail=f"the handler did not end within {action.timeout_ms} ms",
        rollback="due" if has_rollback else "none",
    )


def failed(action: Action, error: BaseException) -> Failure:
    """The handler raised: rolled back when the failure, or else its declaration, allows it.

    What it rejected was its tenant's mistake: nothing was done, and there is no alert (D29).
    """
    if isinstance(error, RejectedError):
        return Failure(
            state=advance(ACTION, ActionState.RUNNING, "error"),
            operation="action_failed",
            error_code=error_code(error),
            error_detail=text_of(error),
            rollback="none",
            is_counted=False,
        )
    is_recoverable = (
        isinstance(error, RecoverableError)
        if isinstance(error, (RecoverableError, UnrecoverableError))
        else action.recoverable
    )
    rolls_back = is_recoverable and action.has_rollback is not False
    return Failure(
        state=advance(ACTION, ActionState.RUNNING, "error", *(["undo"] if rolls_back else [])),
        operation="action_failed",
        error_code=error_code(error),
        error_detail=text_of(error),
        rollback="due" if rolls_back else "none" if is_recoverable else "impossible",
        is_recoverable=is_recoverable,
    )


def text_of(error: BaseException) -> str:
    """What an error says, bounded, and as every store takes it."""
    try:
        text = str(error)
    except Exception as fault:  # an error whose own text fails
        text = f"(no text: {type(fault).__name__})"
    text = text[:MAX_ERROR_DETAIL_CHARS].encode(errors="backslashreplace").decode()
    return text[:MAX_ERROR_DETAIL_CHARS]


def error_code(error: BaseException) -> str:
    """A word for what went wrong: the error's own code, where that is one, else its type."""
    code = str(error.code) if isinstance(error, (ActionError, GovernorError)) else ""
    for word in (code[:64], type(error).__name__.lstrip("_")[:64]):
        if _CODE.fullmatch(word):
            return word
    return "UNCLASSIFIED"


def retry_after_s(attempts: int) -> float:
    """How long a failed rollback rests before the next try: doubling from 1 s to 5 minutes."""
    return min(_RETRY_MAX_S, _RETRY_BASE_S * 2.0 ** min(attempts - 1, 20))
