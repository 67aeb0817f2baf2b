from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError
from governor.quota import Verdict, decide, month_ends_in_s, month_of, refusal, remaining

moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.integers(), st.integers())
def test_what_remains_is_never_negative(limit: int, used: int) -> None:
    assert remaining(limit, used) >= 0


@given(*[st.integers(0, 50)] * 4)
def test_admission_never_exceeds_either_limit(
    in_flight: int, concurrent: int, used: int, monthly: int
) -> None:
    verdict = decide(
        in_flight=in_flight, concurrent_limit=concurrent, used=used, monthly_limit=monthly
    )

    assert (verdict is Verdict.ADMITTED) == (in_flight < concurrent and used < monthly)


def test_a_full_house_is_told_before_a_full_month() -> None:
    full = {"in_flight": 5, "concurrent_limit": 5, "used": 9, "monthly_limit": 9}

    assert decide(**full) is Verdict.CONCURRENCY


@pytest.mark.parametrize(
    ("at", "month"),
    [
        (datetime(2026, 11, 30, 23, 59, 59, 999999, UTC), "2026-11"),
        (datetime(2026, 12, 1, tzinfo=UTC), "2026-12"),
        (datetime(2027, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), "2026-12"),
    ],
    ids=["last microsecond", "first moment", "already next year elsewhere"],
)
def test_months_are_calendar_months_in_utc(at: datetime, month: str) -> None:
    assert month_of(at) == month


def test_a_naive_moment_has_no_month() -> None:
    with pytest.raises(InputError):
        month_of(datetime(2026, 1, 1))  # noqa: DTZ001


@given(moments)
def test_the_month_ends_when_the_next_begins(at: datetime) -> None:
    ends = at + timedelta(seconds=month_ends_in_s(at))

    assert month_of(ends + timedelta(seconds=1)) != month_of(at)
    assert month_ends_in_s(at) >= 1


@pytest.mark.parametrize(
    ("verdict", "error", "retry_after_s"),
    [
        (Verdict.NO_LEASE, OutageError, 5),
        (Verdict.DEGRADED, OutageError, 5),
        (Verdict.DRAINING, OutageError, 30),
        (Verdict.SUSPENDED, DeniedError, None),
        (Verdict.STALE_KEY, InputError, None),
        (Verdict.CONCURRENCY, DeniedError, 1),
        (Verdict.QUOTA, DeniedError, 77),
        (Verdict.NOT_PERMITTED, DeniedError, None),
        (Verdict.UNKNOWN_TENANT, InputError, None),
        (Verdict.AMBIGUOUS, ConflictError, None),
        (Verdict.CONFLICT, ConflictError, None),
    ],
)
def test_each_refusal_says_whether_and_when_to_come_back(
    verdict: Verdict, error: type[GovernorError], retry_after_s: int | None
) -> None:
    refused = refusal(verdict, month_ends_in_s=77)

    assert type(refused) is error
    assert (refused.code, refused.retry_after_s) == (verdict.value, retry_after_s)
