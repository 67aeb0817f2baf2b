"""What a change of a governor's limit costs until the month ends (D24)."""

from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal


def cost_delta_usd(previous: int, new: int, price_month_usd: Decimal, at: datetime) -> Decimal:
    """What a change of the limit costs until the month ends, by the reservation; may be negative.

    Rounded half to even, to millionths of a dollar.
    """
    exact = (new - previous) * price_month_usd * _month_left(at)
    return exact.quantize(Decimal("0.000001"), ROUND_HALF_EVEN)


def affordable(budget_left_usd: Decimal, price_month_usd: Decimal, at: datetime) -> int:
    """How many more at once the budget pays for until the month ends."""
    each = price_month_usd * _month_left(at)
    return 10**9 if each == 0 else max(0, int(budget_left_usd / each))


def _month_left(at: datetime) -> Decimal:
    """The part of a UTC month that is still to come, exactly."""
    now = at.astimezone(UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = (first + timedelta(days=32)).replace(day=1)
    microsecond = timedelta(microseconds=1)
    return Decimal((following - now) // microsecond) / Decimal((following - first) // microsecond)
