"""What a change of a governor's limit costs, and whether it helped (Runbook 3, D24, D25)."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

from pydantic import Field

from governor.records import Record, Timestamp

LAGGING = 10
"""More signals than this that wait are a lag (the contract)."""


class Reading(Record):
    """How many signals wait, and as of when; ``value`` None: unknown, which is never 0."""

    value: int | None = Field(ge=0)
    as_of: Timestamp


def cost_delta_usd(previous: int, new: int, price_month_usd: Decimal, at: datetime) -> Decimal:
    """What a change of the limit costs until the month ends, by the reservation; may be negative.

    Rounded half to even, to millionths of a dollar.
    """
    exact = (new - previous) * price_month_usd * _month_left(at)
    return exact.quantize(Decimal("0.000001"), ROUND_HALF_EVEN)


def _month_left(at: datetime) -> Decimal:
    """The part of a UTC month that is still to come, exactly."""
    now = at.astimezone(UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    microsecond = timedelta(microseconds=1)
    return Decimal((following - now) // microsecond) / Decimal((following - first) // microsecond)


Verdict = Literal["better", "same", "worse", "inconclusive", "superseded"]
VERDICT_AFTER_S = 60


def verdict(before: int | None, after: int | None) -> Verdict:
    """Whether a lag that was ``before`` became less, as of a minute or more later."""
    if before is None or after is None:
        return "inconclusive"
    margin = max(2.0, before / 10)
    if after > before + margin:
        return "worse"
    return "better" if after < before - margin or after <= LAGGING else "same"
