"""A version in its first minutes: what became of its actions, and whether everybody leaves it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from governor.actions import DEADLINE_EXCEEDED, Action
from governor.fsm import ActionState
from governor.policy import Bake

Ending = Literal["complete", "timed_out", "failed", "rollback_failed"]
Verdict = Literal["watching", "passed", "failing", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many actions under one version ended in which way, in the last 24 hours.

    ``accounts``: of each account, how many ended, and how many of them did not complete.
    """

    complete: int = 0
    timed_out: int = 0
    failed: int = 0
    rollback_failed: int = 0
    accounts: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def failing(self) -> int:
        """Those that did not complete."""
        return self.timed_out + self.failed + self.rollback_failed

    @property
    def ended(self) -> int:
        """All of them."""
        return self.complete + self.failing


def ending_of(action: Action) -> Ending | None:
    """How an action that holds no slot any more ended; None where that says nothing of its version.

    One that never began waited too long, or its tenant has left. One that is not counted was
    refused as its tenant's mistake (D29), or stopped by its tenant's cancellation.
    """
    if not action.is_counted or action.claim is None:
        return None
    if action.state is ActionState.COMPLETE:
        return "complete"
    if action.error_code is None:
        return None
    if action.state is ActionState.ROLLBACK_FAILED:
        return "rollback_failed"
    return "timed_out" if action.error_code == DEADLINE_EXCEEDED else "failed"


def judge(new: Outcomes, before: Outcomes, bake: Bake, *, is_over: bool) -> Verdict:
    """Whether a version may stay, by its own actions and those of a version that was good.

    Failures of one account alone, where several act, prove nothing: it may send anything.

    Args:
        new: what ended under it.
        before: what ended under the version that was good; too few say nothing.
        bake: how much may fail, and how many actions prove it.
        is_over: whether it was watched for as long as it has to be.
    """
    if new.ended < bake.min_actions:
        return "inconclusive" if is_over else "watching"
    known = (before.failing, before.ended) if before.ended >= bake.min_actions else (0, 1)

    def is_worse(failing: int, ended: int, times: int) -> bool:
        exceeds = failing * 100 > bake.failing_percent * ended
        return exceeds and failing * known[1] > times * known[0] * ended

    hit = [account for account, (ended, bad) in new.accounts.items() if is_worse(bad, ended, 2)]
    if is_worse(new.failing, new.ended, 2) and len(hit) >= min(2, len(new.accounts)):
        return "failing"
    if not is_over:
        return "watching"
    return "inconclusive" if is_worse(new.failing, new.ended, 1) else "passed"
