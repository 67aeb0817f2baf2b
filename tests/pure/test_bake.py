"""Whether a version may stay, by what became of its actions."""

import pytest

from governor.actions import DEADLINE_EXCEEDED, QUEUE_TIMEOUT, Action
from governor.bake import Outcomes, ending_of, judge
from governor.fsm import ActionState
from governor.policy import Bake
from governor.records import ProcessClaim

BAKE = Bake(failing_percent=10, min_actions=20)
CLAIM = ProcessClaim(
    host="host", pid=1, process_started=2.5, claimed_at="2026-11-26T12:00:00.000000Z"
)


def _counts(complete: int, failed: int, **accounts: tuple[int, int]) -> Outcomes:
    """Of one account, unless others are named: how many ended, and how many of them badly."""
    own = {"only": (complete + failed, failed)}
    return Outcomes(complete=complete, failed=failed, accounts=accounts or own)


@pytest.mark.parametrize(
    ("new", "before", "is_over", "verdict"),
    [
        (_counts(0, 19), _counts(100, 0), False, "watching"),
        (_counts(0, 19), _counts(100, 0), True, "inconclusive"),
        (_counts(0, 20), _counts(100, 0), False, "failing"),
        (_counts(18, 2), _counts(100, 0), False, "watching"),  # exactly 10 %
        (_counts(18, 2), _counts(100, 0), True, "passed"),
        (_counts(17, 3), _counts(100, 0), False, "failing"),
        (_counts(80, 20), _counts(90, 10), False, "watching"),  # exactly twice as many
        (_counts(80, 20), _counts(90, 10), True, "inconclusive"),
        (_counts(79, 21), _counts(90, 10), False, "failing"),
        (_counts(80, 20), _counts(80, 20), True, "passed"),  # no worse than before
        (_counts(17, 3), _counts(0, 0), False, "failing"),  # nothing to compare with
        (_counts(0, 40), _counts(0, 1), False, "failing"),  # nor in one action
        (_counts(20, 0), _counts(0, 0), True, "passed"),
    ],
)
def test_a_verdict_needs_enough_actions_and_a_worse_share(
    new: Outcomes, before: Outcomes, is_over: bool, verdict: str
) -> None:
    assert judge(new, before, BAKE, is_over=is_over) == verdict


def test_one_account_of_several_sends_nobody_back() -> None:
    good = Outcomes(complete=100)
    evil = _counts(30, 20, good=(30, 0), evil=(20, 20))
    both = _counts(30, 20, one=(25, 10), other=(25, 10))

    assert judge(evil, good, BAKE, is_over=False) == "watching"
    assert judge(evil, good, BAKE, is_over=True) == "inconclusive"
    assert judge(both, good, BAKE, is_over=False) == "failing"


@pytest.mark.parametrize(
    ("state", "code", "ending"),
    [
        (ActionState.COMPLETE, None, "complete"),
        (ActionState.ROLLED_BACK, DEADLINE_EXCEEDED, "timed_out"),
        (ActionState.ROLLED_BACK, "CRM_SAYS_NO", "failed"),
        (ActionState.FAILED, "DRAINED", "failed"),  # a handler may say what it likes
        (ActionState.FAILED, "WORKER_LOST", "failed"),
        (ActionState.ROLLBACK_FAILED, "CRM_SAYS_NO", "rollback_failed"),
        (ActionState.RUNNING, None, None),
    ],
)
def test_how_an_action_counts(state: ActionState, code: str | None, ending: str | None) -> None:
    action = Action.model_construct(state=state, error_code=code, claim=CLAIM, is_counted=True)

    assert ending_of(action) == ending
    assert ending_of(action.model_copy(update={"is_counted": False})) is None


def test_what_never_began_says_nothing_of_its_version() -> None:
    late = Action.model_construct(
        state=ActionState.FAILED, error_code=QUEUE_TIMEOUT, claim=None, is_counted=True
    )

    assert ending_of(late) is None
