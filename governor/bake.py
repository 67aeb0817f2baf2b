"""A version in its first minutes: what became of its actions, and whether everybody leaves it."""

from dataclasses import dataclass
from typing import Literal

from governor.actions import DEADLINE_EXCEEDED, DRAINED, QUEUE_TIMEOUT, Action
from governor.fsm import ActionState
from governor.policy import Bake

Ending = Literal["complete", "timed_out", "failed", "rollback_failed"]
Verdict = Literal["watching", "passed", "failing", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many actions under one version ended in which way."""

    complete: int = 0
    timed_out: int = 0
    failed: int = 0
    rollback_failed: int = 0

    @property
    def failing(self) -> int:
        """Those that did not complete."""
        return self.timed_out + self.failed + self.rollback_failed

    @property
    def ended(self) -> int:
        """All of them."""
        return self.complete + self.failing

    def since(self, before: "Outcomes") -> "Outcomes":
        """Those that came since an earlier count; after a loss of Memory, all there are."""
        if self.ended < before.ended:
            return self
        return Outcomes(
            self.complete - before.complete,
            self.timed_out - before.timed_out,
            self.failed - before.failed,
            self.rollback_failed - before.rollback_failed,
        )


def ending_of(action: Action) -> Ending | None:
    """How an action that holds no slot any more ended; None where that says nothing of its version.

    A tenant's mistake never becomes an action (D29). One stopped by its tenant's cancellation did
    not fail by itself.
    """
    if action.state is ActionState.COMPLETE:
        return "complete"
    if action.error_code is None or action.error_code == DRAINED:
        return None
    if action.state is ActionState.ROLLBACK_FAILED:
        return "rollback_failed"
    is_late = action.error_code in (DEADLINE_EXCEEDED, QUEUE_TIMEOUT)
    return "timed_out" if is_late else "failed"


def judge(new: Outcomes, before: Outcomes, bake: Bake, *, is_over: bool) -> Verdict:
    """Whether a version may stay, by its own actions and those of the version before.

    Args:
        new: what ended under it since it came into force.
        before: what ended under the version before, until then.
        bake: how much may fail, and how many actions prove it.
        is_over: whether it was watched for as long as it has to be.
    """
    if new.ended < bake.min_actions:
        return "inconclusive" if is_over else "watching"
    exceeds = new.failing * 100 > bake.failing_percent * new.ended
    if exceeds and new.failing * before.ended > 2 * before.failing * new.ended:
        return "failing"
    if exceeds and not before.ended:
        return "failing"
    return "passed" if is_over else "watching"
