"""Whether a version may stay, by what became of its actions."""

import pytest

from governor.actions import DEADLINE_EXCEEDED, DRAINED, QUEUE_TIMEOUT, Action
from governor.bake import Outcomes, ending_of, judge
from governor.fsm import ActionState
from governor.policy import Bake

BAKE = Bake(failing_percent=10, min_actions=20)


def _counts(complete: int, failed: int) -> Outcomes:
    return Outcomes(complete=complete, failed=failed)


@pytest.mark.parametrize(
    ("new", "before", "is_over", "verdict"),
    [
        (_counts(0, 19), _counts(100, 0), False, "watching"),
        (_counts(0, 19), _counts(100, 0), True, "inconclusive"),
        (_counts(0, 20), _counts(100, 0), False, "failing"),
        (_counts(18, 2), _counts(100, 0), False, "watching"),  # exactly 10 %
        (_counts(18, 2), _counts(100, 0), True, "passed"),
        (_counts(17, 3), _counts(100, 0), False, "failing"),
        (_counts(80, 20), _counts(90, 10), True, "passed"),  # exactly twice as many
        (_counts(79, 21), _counts(90, 10), False, "failing"),
        (_counts(17, 3), _counts(0, 0), False, "failing"),  # nothing to compare with
        (_counts(20, 0), _counts(0, 0), True, "passed"),
        (_counts(0, 20), _counts(0, 5), True, "passed"),  # it was no better before
    ],
)
def test_a_verdict_needs_enough_actions_and_a_worse_share(
    new: Outcomes, before: Outcomes, is_over: bool, verdict: str
) -> None:
    assert judge(new, before, BAKE, is_over=is_over) == verdict


def test_what_came_since_survives_a_loss_of_the_counts() -> None:
    then = Outcomes(complete=5, timed_out=1, failed=2, rollback_failed=1)
    now = Outcomes(complete=7, timed_out=2, failed=4, rollback_failed=2)

    assert now.since(then) == Outcomes(complete=2, timed_out=1, failed=2, rollback_failed=1)
    assert Outcomes(complete=1).since(then) == Outcomes(complete=1)
    assert (now.ended, now.failing) == (15, 8)


@pytest.mark.parametrize(
    ("state", "code", "ending"),
    [
        (ActionState.COMPLETE, None, "complete"),
        (ActionState.ROLLED_BACK, DEADLINE_EXCEEDED, "timed_out"),
        (ActionState.FAILED, QUEUE_TIMEOUT, "timed_out"),
        (ActionState.ROLLED_BACK, "CRM_SAYS_NO", "failed"),
        (ActionState.FAILED, "WORKER_LOST", "failed"),
        (ActionState.ROLLBACK_FAILED, "CRM_SAYS_NO", "rollback_failed"),
        (ActionState.FAILED, DRAINED, None),
        (ActionState.PENDING, None, None),
    ],
)
def test_how_an_action_counts(state: ActionState, code: str | None, ending: str | None) -> None:
    action = Action.model_construct(state=state, error_code=code)

    assert ending_of(action) == ending
