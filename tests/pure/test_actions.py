from datetime import timedelta

import pytest

from governor import actions
from governor.actions import Action
from governor.errors import InputError, RecoverableError, RejectedError, UnrecoverableError
from governor.fsm import ActionState
from governor.records import ProcessClaim
from governor.times import instant, timestamp


def _action(*, recoverable: bool = True) -> Action:
    return Action(
        action_id="action-1",
        account_id="acme",
        sku_id="crm",
        signal_id="s",
        signal_type="t",
        signal_sha256="0" * 64,
        payload="{}",
        handler="crm.resize",
        policy_version="1.0.0",
        timeout_ms=500,
        rollback_timeout_ms=100,
        queue_timeout_ms=15_000,
        recoverable=recoverable,
        deadline_from_submit=False,
        accepted_at="2026-11-23T12:00:00.000000Z",
        month="2026-11",
    )


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


def test_a_tenant_s_mistake_is_not_undone_and_says_nothing_of_the_version() -> None:
    failure = actions.failed(_action(), RejectedError("NO_SUCH_SEAT"))

    assert (failure.state, failure.rollback) == (ActionState.FAILED, "none")
    assert not failure.is_counted


def test_a_handlers_words_are_bounded() -> None:
    failure = actions.failed(_action(), RecoverableError("C" * 999, "d" * 9999))

    assert len(failure.error_code) == 64
    assert len(failure.error_detail) == actions.MAX_ERROR_DETAIL_CHARS


def test_the_hard_limit_lies_past_both_deadlines() -> None:
    assert actions.hard_limit_ms(_action()) == 500 + 100 + 3000
    # A rollback that was taken over begins its attempt after the claim: twice as long at the least.
    taken_over = _action().evolve(state=ActionState.ROLLING_BACK, rollback_attempts=2)
    assert actions.hard_limit_ms(taken_over) == 500 + 800 + 3000


def test_a_rollback_that_fails_is_given_twice_the_time_up_to_thirty_seconds() -> None:
    limits = [actions.rollback_limit_ms(_action().evolve(rollback_attempts=n)) for n in range(12)]

    assert limits[:4] == [100, 200, 400, 800]
    assert limits[9:] == [30_000] * 3


def test_the_words_of_an_error_are_no_code() -> None:
    assert actions.error_code(RecoverableError("Jane Doe, 42 Main Street")) == "RecoverableError"


def test_an_error_without_a_word_or_a_text_of_its_own_has_one_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise KeyError("no words")

    nameless = type("___", (Exception,), {})

    assert actions.error_code(nameless()) == "UNCLASSIFIED"
    assert actions.text_of(Mute()) == "(no text: KeyError)"
    assert actions.text_of(OSError("\udcff")) == "\\udcff"


def test_failed_rollbacks_rest_longer_each_time_up_to_five_minutes() -> None:
    assert [actions.retry_after_s(n) for n in (1, 2, 3, 9, 10, 1000)] == [1, 2, 4, 256, 300, 300]


def test_errors_have_a_stable_code() -> None:
    assert actions.error_code(InputError("no-policy", "…")) == "no-policy"
    assert actions.error_code(KeyError("x")) == "KeyError"
    assert actions.error_code(RecoverableError(409)) == "409"  # type: ignore[arg-type]
    assert actions.error_code(RecoverableError("")) == "RecoverableError"


ACCEPTED = instant("2026-11-23T12:00:00.000000Z")


def test_what_waits_is_looked_at_when_it_is_twice_as_old_and_when_its_time_is_up() -> None:
    ages_ms, age_ms = [], 0
    while age_ms < 15_000:
        age_ms += actions.queued_look_in_ms(_action(), age_ms)
        ages_ms.append(age_ms)

    assert ages_ms == [2_000, 4_000, 8_000, 15_000]
    assert actions.queued_look_in_ms(_action(), 99_000) == 1


def _under_way(state: ActionState, *, rests: bool = True) -> Action:
    claim = ProcessClaim(host="h", pid=1, process_started=1.0, claimed_at=timestamp(ACCEPTED))
    is_claimed = state in (ActionState.RUNNING, ActionState.ROLLING_BACK)
    return _action().evolve(
        state=state,
        claim=claim if is_claimed else None,
        retry_at=timestamp(ACCEPTED) if state is ActionState.ROLLBACK_FAILED and rests else None,
        rollback_attempts=1 if state is ActionState.ROLLING_BACK else 0,
    )


@pytest.mark.parametrize(
    ("state", "rests_ms"),
    [
        (ActionState.PENDING, 15_000),
        (ActionState.RUNNING, 4_100 + 500),
        (ActionState.ROLLING_BACK, 4_400 + 1_000),  # the time of a rollback doubles: 400 ms
        (ActionState.ROLLBACK_FAILED, 0),
    ],
)
def test_an_action_past_every_age_is_overdue(state: ActionState, rests_ms: int) -> None:
    late_at = ACCEPTED + timedelta(milliseconds=rests_ms + actions.ORPHANED_AFTER_MS)

    assert not actions.is_overdue(_under_way(state), late_at)
    assert actions.is_overdue(_under_way(state), late_at + timedelta(milliseconds=1))


@pytest.mark.parametrize(
    "action", [_under_way(ActionState.ROLLBACK_FAILED, rests=False), _under_way(ActionState.FAILED)]
)
def test_what_waits_for_nothing_is_never_overdue(action: Action) -> None:
    assert not actions.is_overdue(action, ACCEPTED + timedelta(days=1))


def test_an_undo_nobody_takes_is_handed_out_less_and_less_often() -> None:
    action = _under_way(ActionState.ROLLING_BACK)

    def rest_ms(age_s: int) -> int:
        return actions.undo_rest_ms(action, ACCEPTED + timedelta(seconds=age_s))

    assert [rest_ms(age_s) for age_s in (0, 2, 30, 86_400)] == [2_000, 2_000, 30_000, 300_000]
