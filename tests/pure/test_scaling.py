"""What a change of a limit costs, by published vectors; and whether it helped."""

from datetime import datetime
from decimal import Decimal

import pytest

from governor.scaling import cost_delta_usd, verdict

# Price, change, moment, and the cost until the month ends.
COSTS = [
    ("2.00", 20, 50, "2026-11-16T00:00:00+00:00", "30.000000"),
    ("2.00", 50, 20, "2026-11-16T00:00:00+00:00", "-30.000000"),
    ("1", 0, 1, "2026-11-01T00:00:00+00:00", "1.000000"),
    ("1", 0, 1, "2026-12-31T23:59:59.999999+00:00", "0.000000"),
    ("0.000001", 0, 1, "2026-11-16T00:00:00+00:00", "0.000000"),  # half of a millionth, to even
    ("0.000003", 0, 1, "2026-11-16T00:00:00+00:00", "0.000002"),
    ("0.10", 5, 14, "2028-02-20T06:30:00+01:00", "0.303233"),
    ("7.13", 20, 47, "2026-11-26T12:34:56.789012+00:00", "28.720770"),
]


@pytest.mark.parametrize(("price", "previous", "new", "at", "cost"), COSTS)
def test_costs_are_those_of_the_published_vectors(
    price: str, previous: int, new: int, at: str, cost: str
) -> None:
    moment = datetime.fromisoformat(at)

    assert str(cost_delta_usd(previous, new, Decimal(price), moment)) == cost


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (100, 111, "worse"),
        (100, 110, "same"),
        (100, 90, "same"),
        (100, 89, "better"),
        (12, 14, "same"),
        (12, 15, "worse"),
        (12, 10, "better"),
        (None, 5, "inconclusive"),
        (5, None, "inconclusive"),
    ],
)
def test_a_verdict(before: int | None, after: int | None, told: str) -> None:
    assert verdict(before, after) == told
