import pytest

from governor import actions
from governor.errors import InputError, RecoverableError, UnrecoverableError
from governor.fsm import ActionState
from governor.records import Action


def _action(*, recoverable: bool = True) -> Action:
    return Action(
        action_id="action-1", account_id="acme", sku_id="crm", signal_id="s", signal_type="t",
        signal_sha256="0" * 64, payload="{}", handler="crm.resize", policy_version="1.0.0",
        timeout_ms=500, rollback_timeout_ms=100, queue_timeout_ms=15_000, recoverable=recoverable,
        deadline_from_submit=False, accepted_at="2026-11-23T12:00:00.000000Z", month="2026-11",
    )  # fmt: skip


def test_a_timeout_is_always_rolled_back() -> None:
    failure = actions.timed_out(_action(recoverable=False))

    assert failure.rolls_back
    assert failure.state is ActionState.ROLLING_BACK
    assert failure.operation == "action_timeout"


@pytest.mark.parametrize(
    ("error", "declared", "rolls_back"),
    [
        (RecoverableError("X"), False, True),
        (UnrecoverableError("X"), True, False),
        (ValueError("x"), True, True),
        (ValueError("x"), False, False),
    ],
    ids=["says it can", "says it cannot", "declared it can", "declared it cannot"],
)
def test_a_failure_is_rolled_back_when_it_or_else_its_declaration_says_so(
    error: Exception, declared: bool, rolls_back: bool
) -> None:
    failure = actions.failed(_action(recoverable=declared), error)

    assert failure.rolls_back is rolls_back
    assert failure.state is (ActionState.ROLLING_BACK if rolls_back else ActionState.FAILED)


def test_a_handlers_words_are_bounded() -> None:
    failure = actions.failed(_action(), RecoverableError("C" * 999, "d" * 9999))

    assert len(failure.error_code) == 64
    assert len(failure.error_detail) == actions.MAX_ERROR_DETAIL_CHARS


def test_the_hard_limit_lies_past_both_deadlines() -> None:
    assert actions.hard_limit_ms(_action()) == 500 + 100 + 3000


def test_failed_rollbacks_rest_longer_each_time_up_to_five_minutes() -> None:
    assert [actions.retry_after_s(n) for n in (1, 2, 3, 9, 10, 1000)] == [1, 2, 4, 256, 300, 300]


def test_errors_have_a_stable_code() -> None:
    assert actions.error_code(InputError("no-policy", "…")) == "no-policy"
    assert actions.error_code(KeyError("x")) == "KeyError"
    assert actions.error_code(RecoverableError(409)) == "409"  # type: ignore[arg-type]
    assert actions.error_code(RecoverableError("")) == "RecoverableError"
