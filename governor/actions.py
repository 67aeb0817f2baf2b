"""What an action's end means: pure rules that the worker and the reaper both obey (D9-D19)."""

from dataclasses import dataclass

from governor.errors import (
    ActionError,
    GovernorError,
    RecoverableError,
    UnrecoverableError,
)
from governor.fsm import ACTION, ActionState, advance
from governor.records import Action

HARD_LIMIT_MARGIN_MS = 3_000
"""How long after both deadlines a child that still hangs is killed (D9)."""

SLOT_MARGIN_MS = 500
"""How long after the hard limit the slot's deadline lies, so that the kill comes first (D10)."""

MAX_ERROR_DETAIL_CHARS = 512
"""Bound of a handler's own words in an action and its receipt."""

_RETRY_BASE_S, _RETRY_MAX_S = 1.0, 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """How a handler ended badly: where the action goes, and which receipt says so."""

    state: ActionState
    operation: str
    error_code: str
    error_detail: str
    rolls_back: bool


def hard_limit_ms(action: Action) -> int:
    """From the handler's start to the kill of its child, for a handler that will not stop."""
    return action.timeout_ms + action.rollback_timeout_ms + HARD_LIMIT_MARGIN_MS


def timed_out(action: Action) -> Failure:
    """The deadline fired: always rolled back (spec, Runbook 5)."""
    return Failure(
        state=advance(ACTION, ActionState.RUNNING, "deadline", "undo"),
        operation="action_timeout",
        error_code="DEADLINE_EXCEEDED",
        error_detail=f"the handler did not end within {action.timeout_ms} ms",
        rolls_back=True,
    )


def failed(action: Action, error: BaseException) -> Failure:
    """The handler raised: rolled back when the failure, or else its declaration, allows it."""
    rolls_back = (
        isinstance(error, RecoverableError)
        if isinstance(error, (RecoverableError, UnrecoverableError))
        else action.recoverable
    )
    return Failure(
        state=advance(ACTION, ActionState.RUNNING, "error", *(["undo"] if rolls_back else [])),
        operation="action_failed",
        error_code=error_code(error),
        error_detail=str(error)[:MAX_ERROR_DETAIL_CHARS],
        rolls_back=rolls_back,
    )


def error_code(error: BaseException) -> str:
    """A stable word for what went wrong."""
    code = error.code if isinstance(error, (ActionError, GovernorError)) else ""
    return str(code)[:64] or type(error).__name__[:64]


def retry_after_s(attempts: int) -> float:
    """How long a failed rollback rests before the next try: doubling from 1 s to 5 minutes."""
    return min(_RETRY_MAX_S, _RETRY_BASE_S * 2.0 ** min(attempts - 1, 20))
