"""Quota arithmetic (D24): calendar months in UTC, counted at admission, never refunded."""

from datetime import UTC, datetime
from enum import StrEnum

from governor.errors import ConflictError, DeniedError, GovernorError, InputError, OutageError


class Verdict(StrEnum):
    """What admission says of one signal; only the first two lead to an action."""

    ADMITTED = "admitted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    NO_LEASE = "no-lease"
    DEGRADED = "degraded"
    UNKNOWN_TENANT = "unknown-tenant"
    STALE_KEY = "bad-signature"
    DRAINING = "draining"
    SUSPENDED = "entitlement-suspended"
    NOT_PERMITTED = "not-permitted"
    AMBIGUOUS = "ambiguous"
    CONCURRENCY = "concurrency-exceeded"
    QUOTA = "quota-exceeded"


def month_of(at: datetime) -> str:
    """The quota month of a moment, e.g. ``2026-11``.

    Raises:
        InputError: ``at`` is naive, so its month is unknown.
    """
    if at.tzinfo is None:
        raise InputError("naive-datetime", "a quota month needs an aware datetime")
    return at.astimezone(UTC).strftime("%Y-%m")


def month_ends_in_s(at: datetime) -> int:
    """Whole seconds until the next quota month begins, at least 1."""
    now = at.astimezone(UTC)
    year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
    return max(1, int((datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()))


def remaining(limit: int, used: int) -> int:
    """How many more may be taken, never negative."""
    return max(0, limit - used)


def decide(*, in_flight: int, concurrent_limit: int, used: int, monthly_limit: int) -> Verdict:
    """Whether one more action fits. The admission script computes the same; a test compares them.

    Concurrency is asked first: it passes in a moment, an exhausted month does not.
    """
    if remaining(concurrent_limit, in_flight) == 0:
        return Verdict.CONCURRENCY
    if remaining(monthly_limit, used) == 0:
        return Verdict.QUOTA
    return Verdict.ADMITTED


def refusal(  # noqa: C901, PLR0911  # a table
    verdict: Verdict, *, month_ends_in_s: int
) -> GovernorError:
    """The error a refused signal is answered with (D8)."""
    code = verdict.value
    match verdict:
        case Verdict.NO_LEASE | Verdict.DEGRADED:
            return OutageError(code, "new actions are refused until the store is healthy again", 5)
        case Verdict.DRAINING:
            return OutageError(code, "this governor takes no new actions in its present state", 30)
        case Verdict.SUSPENDED:
            return DeniedError(
                code, "the marketplace has suspended this entitlement; nothing of it was deleted"
            )
        case Verdict.STALE_KEY:
            return InputError(
                code, "this key is of a former subscription: sign with the account's present key"
            )
        case Verdict.CONCURRENCY:
            return DeniedError(code, "as many actions as the plan allows are in flight", 1)
        case Verdict.QUOTA:
            return DeniedError(code, "this month's actions are used up", month_ends_in_s)
        case Verdict.NOT_PERMITTED:
            return DeniedError(code, "no such entitlement of this account permits this signal type")
        case Verdict.UNKNOWN_TENANT:
            return InputError(code, "this account has no governor; it must subscribe first")
        case Verdict.AMBIGUOUS:
            return ConflictError(code, "several entitlements fit: name one in entitlement_id")
        case _:
            return ConflictError(code, "this signal_id was used before with another content")
