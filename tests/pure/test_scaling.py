"""The limit follows what is needed, and nothing that is late, lost, doubled or out of order."""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from governor import paths
from governor.scaling.cost import affordable, cost_delta_usd
from governor.scaling.decision import Inputs, Need, Why, decide
from governor.scaling.history import History, arrivals_rose, back_off_s, verdict
from governor.scaling.readings import Reading
from governor.scaling.samples import Sample, demand_of, remembered
from governor.times import timestamp

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)


def ago(seconds: float) -> str:
    return timestamp(NOON - timedelta(seconds=seconds))


def own(*values: int | None) -> tuple[Reading, ...]:
    """Samples of our own, a second apart, the newest now."""
    return tuple(
        Reading(value=value, as_of=ago(len(values) - 1 - n), source="own")
        for n, value in enumerate(values)
    )


def inputs(**changes: Any) -> Inputs:
    """A governor at its limit of 20 beside 400 that wait: it needs 42."""
    told: dict[str, Any] = {
        "at": ago(0),
        "limit": 20,
        "floor": 20,
        "ceiling": 100,
        "readings": own(400, 400),
        "in_flight": 20,
        "bound_share": 1.0,
        "refused_per_s": 5.0,
        "arrivals_per_s": 75.0,
        "held_s": 0.5,
        "free_workers": 1000,
        "month_left": 10_000,
        "budget_left_usd": Decimal(1000),
        "price_month_usd": Decimal("0.1"),
        **changes,
    }
    return Inputs(**told)


def test_what_is_needed_is_given_at_most_twice_what_there_was() -> None:
    assert decide(inputs(limit=30)).limit == decide(inputs()).need == 41
    assert decide(inputs()).limit == 40
    assert decide(inputs(limit=4, floor=4, in_flight=4, arrivals_per_s=10_000)).limit == 14


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"readings": own(400), "refused_per_s": 0}, "enough"),  # one sample
        ({"readings": own(11, 10), "refused_per_s": 0}, "enough"),
        ({"readings": own(None, None), "refused_per_s": 0}, "lag-unknown"),
        ({"readings": (), "refused_per_s": 0}, "lag-unknown"),
        ({"bound_share": 0.7}, "not-binding"),
        ({"refused_per_s": 0}, "not-binding"),
        ({"ended": 20, "timed_out": 5}, "handlers-timing-out"),
        ({"backing_off_until": ago(-1)}, "backing-off"),
        ({"changed_at": ago(59)}, "cooling-down"),
        ({"changed_at": ago(-5)}, "cooling-down"),  # by a clock that is ahead
        ({"changes_last_hour": 10}, "too-many-changes"),
        ({"paused_until": ago(-1)}, "paused"),
        ({"ceiling": 20}, "plan"),
        ({"month_left": 0}, "month"),
        ({"budget_left_usd": Decimal(0)}, "budget"),
        ({"free_workers": 0}, "capacity"),
        ({"free_workers": None}, "workers-unknown"),
        ({"held_s": 0.2}, "enough"),
    ],
)
def test_it_stays_and_says_why(changes: dict[str, Any], why: Why) -> None:
    decision = decide(inputs(**changes))

    assert (decision.limit, decision.why) == (20, why)


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({"ended": 19, "timed_out": 19}, 40),  # too few to say anything
        ({"ceiling": 30}, 30),
        ({"free_workers": 7}, 27),
        ({"budget_left_usd": Decimal("0.05"), "price_month_usd": Decimal("0.1")}, 23),
        ({"readings": ()}, 40),  # by HTTP alone there is no backlog; refusals are the demand
    ],
)
def test_it_rises_as_far_as_something_lets_it(changes: dict[str, Any], limit: int) -> None:
    assert decide(inputs(**changes)).limit == limit


def idle(**changes: Any) -> Inputs:
    quiet = {"arrivals_per_s": 2.0, "refused_per_s": 0, "in_flight": 1, "bound_share": 0}
    known = {"needs": (Need(at=ago(295), need=1),)}
    return inputs(**{"limit": 60, "readings": own(0, 0), **quiet, **known, **changes})


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, 36),
        ({"floor": 57}, 57),
        ({"in_flight": 58}, 58),
        ({"limit": 21}, 20),
        ({"limit": 20}, 20),
        ({"needs": (Need(at=ago(290), need=53),)}, 53),
        ({"needs": (Need(at=ago(290), need=55),)}, 60),
        ({"needs": (Need(at=ago(301), need=55),)}, 36),
        ({"needs": ()}, 60),  # too little is known
        ({"needs": (Need(at=ago(200), need=1),)}, 60),
        ({"readings": own(11)}, 60),
        ({"changed_at": ago(599)}, 60),
        ({"readings": ()}, 60),
        ({"readings": (Reading(value=0, as_of=ago(0), source="monitoring"),)}, 60),
        ({"readings": (Reading(value=0, as_of=ago(6), source="own"),)}, 60),
    ],
)
def test_it_falls_slowly_and_only_by_readings_of_its_own(
    changes: dict[str, Any], limit: int
) -> None:
    assert decide(idle(**changes)).limit == limit


def test_what_lacks_is_named_rightly() -> None:
    """Workers alone lack where the plan allows some of what is wanted."""
    short = decide(inputs(limit=60, readings=own(9000, 9000), arrivals_per_s=900, free_workers=0))

    assert (short.why, short.wanted) == ("capacity", 100)


def test_a_late_reading_may_raise_and_one_told_twice_is_one() -> None:
    """A reading of Cloud Monitoring is two to three minutes old."""
    late = [Reading(value=400, as_of=ago(s), source="monitoring") for s in (170, 110)]

    assert decide(inputs(readings=(*late,))).limit > 20
    twice = inputs(readings=(late[0], late[0]), refused_per_s=0)
    assert decide(twice).why == "lag-unknown"


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


@given(
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    st.datetimes(
        *map(datetime.fromisoformat, ("2024-01-01", "2040-01-01")), timezones=st.just(UTC)
    ),
)
def test_what_is_affordable_costs_no_more_than_there_is(
    cents: int, price: int, at: datetime
) -> None:
    budget, each = Decimal(cents) / 100, Decimal(price) / 100
    more = affordable(budget, each, at)

    assert cost_delta_usd(0, more, each, at) <= budget + Decimal("0.000001")


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


def test_what_does_not_help_is_not_tried_again_at_once() -> None:
    assert [back_off_s(n) for n in range(1, 7)] == [300, 600, 1200, 3600, 3600, 3600]


def test_each_change_in_vain_waits_longer_and_one_that_is_not_to_blame_does_not() -> None:
    first = History().in_vain_again(NOON)
    second = first.in_vain_again(NOON)
    third = second.in_vain_again(NOON, longer=False)

    waits = [each.backing_off_until for each in (first, second, third)]
    assert waits == [ago(-300), ago(-600), ago(-600)]
    assert third.helped() == History()
    assert History().in_vain_again(NOON, longer=False) == History()


@pytest.mark.parametrize(
    ("before", "after", "rose"), [(10, 12.5, False), (10, 12.6, True), (None, 5, False)]
)
def test_arrivals_rose_by_more_than_a_quarter(
    before: float | None, after: float, rose: bool
) -> None:
    assert arrivals_rose(before, after) is rose


def test_changes_are_remembered_as_far_as_they_count() -> None:
    known = History()
    for minute in range(12):
        known = known.changed(NOON - timedelta(minutes=60 - 6 * minute))

    assert len(known.changes) == 10
    assert len(known.since(NOON, 1800)) == 7
    assert known.since(NOON, 1800)[-1] == ago(-360)


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("tenants.acme.signals", "acme"),
        ("tenants.a_b-c.signals", "a_b-c"),
        ("tenants.a.b.signals", None),
        ("tenants._system.signals", None),
        ("xtenants.acme.signals", None),
        ("", None),
    ],
)
def test_whose_topic_it_is(name: str, account: str | None) -> None:
    assert paths.account_of_topic(name) == account


def test_its_history_lies_beside_its_entitlement() -> None:
    assert paths.scaling_path("acme", "e-1") == "tenants/acme/scaling/e-1"


# -- samples


def sample(seconds_ago: float, **changes: Any) -> Sample:
    return Sample(**{"at": ago(seconds_ago), "limit": 20, "in_flight": 20, **changes})


def test_rates_are_means_over_half_a_minute() -> None:
    known = [
        sample(
            2 * (15 - n),
            admitted=20 * n,
            refused=4 * n,
            pushed_back=2 * n,
            ended=10 * n,
            timed_out=n,
            held_ms=5_000 * n,
            readings=(Reading(value=30 * n, as_of=ago(2 * (15 - n))),),
        )
        for n in range(16)
    ]
    shown = demand_of(known, NOON)

    assert (shown.bound_share, shown.refused_per_s, shown.pushed_back_per_s) == (1, 2, 1)
    assert (shown.arrivals_per_s, shown.held_s) == (10 + 15, 0.5)
    assert (shown.ended, shown.timed_out) == (150, 15)


@pytest.mark.parametrize(
    "known",
    [
        [],
        [sample(0, refused=100)],  # one shows nothing
        [sample(60, admitted=0), sample(58, admitted=100)],  # too old
        [sample(2, admitted=900, refused=9), sample(0, admitted=3, refused=1)],  # Memory was lost
    ],
)
def test_too_little_shows_no_demand(known: list[Sample]) -> None:
    shown = demand_of(known, NOON)

    assert (shown.arrivals_per_s, shown.refused_per_s, shown.bound_share) == (0, 0, 0)


@pytest.mark.parametrize(
    ("moments", "share"),
    [((4, 2, 0), 0), ((8, 6, 4, 2, 0), 1), ((60, 8, 0), 1), ((40, 30, 20, 3), 0)],
)
def test_a_limit_binds_only_where_ten_seconds_are_known(
    moments: tuple[int, ...], share: float
) -> None:
    assert demand_of([sample(s) for s in moments], NOON).bound_share == share


def test_the_highest_need_of_each_minute_is_remembered_for_five() -> None:
    needs: tuple[Need, ...] = ()
    for second in range(0, 600, 10):
        needs = remembered(needs, Need(at=ago(600 - second), need=50 if second == 320 else 5))

    assert max(each.need for each in needs) == 50
    assert len(needs) <= 7
    assert all(each.at >= ago(311) for each in needs)


# -- simulated


class Tenant:
    """A tenant's topic, its places and what is decided of them, second by second."""

    def __init__(self, held_s: float = 0.5, timeouts: float = 0.0, seed: int = 1) -> None:
        self.held_s, self.timeouts = held_s, timeouts
        self.waiting, self.limit, self.served = 0.0, 20, 0.0
        self.changes: list[tuple[int, int, int]] = []
        self.lags: list[float] = []
        self.recommended: list[tuple[int, int]] = []
        self.readings: list[Reading] = []
        self.random = random.Random(seed)
        self.refused_per_s = self.arrivals = 0.0
        self.share: list[float] = []

    def play(
        self, load: Iterator[float], seconds: int, disturb: Callable[[Reading], list[Reading]]
    ) -> None:
        for second in range(seconds):
            arrived = next(load)
            could = self.limit / self.held_s
            self.waiting += arrived
            served = min(self.waiting, could)
            self.waiting -= served
            self.arrivals = 0.9 * self.arrivals + 0.1 * arrived
            self.refused_per_s = min(self.waiting, 5.0)
            self.share = [*self.share, float(served >= 0.8 * could)][-10:]
            self.lags.append(self.waiting)
            if second % 2 == 0:
                seen = Reading(value=round(self.waiting), as_of=self._at(second), source="own")
                self.readings = [*self.readings, *disturb(seen)][-20:]
                self._decide(second, served)

    def _at(self, second: float) -> str:
        return timestamp(NOON + timedelta(seconds=second))

    def _decide(self, second: int, served: float) -> None:
        changed = self.changes[-1][0] if self.changes else None
        told = Inputs(
            at=self._at(second),
            limit=self.limit,
            floor=20,
            ceiling=500,
            readings=tuple(self.readings),
            in_flight=math.floor(served * self.held_s),
            pushed_back_per_s=self.refused_per_s,
            bound_share=sum(self.share) / len(self.share),
            refused_per_s=self.refused_per_s,
            arrivals_per_s=self.arrivals,
            held_s=self.held_s,
            ended=100,
            timed_out=round(100 * self.timeouts),
            free_workers=10_000,
            month_left=10**9,
            budget_left_usd=Decimal(10**6),
            price_month_usd=Decimal(1),
            changed_at=None if changed is None else self._at(changed),
            changes_last_hour=sum(second - at < 3600 for at, *_ in self.changes),
            needs=tuple(
                Need(at=self._at(second - min(second, 295)), need=max(n for _, n in recent))
                for recent in [[each for each in self.recommended[-150:] if second - each[0] < 300]]
                if recent
            ),
        )
        decision = decide(told)
        self.recommended.append((second, decision.need))
        if decision.limit != self.limit:
            self.changes.append((second, self.limit, decision.limit))
            self.limit = decision.limit


def steps(low: float, high: float, at: int) -> Iterator[float]:
    return (low if second < at else high for second in itertools.count())


def sawtooth(low: float, high: float, every: int) -> Iterator[float]:
    return (low + (high - low) * (s % every) / every for s in itertools.count())


def bursts(low: float, high: float, every: int, lasts: int) -> Iterator[float]:
    return (high if s % every < lasts else low for s in itertools.count())


LOADS: dict[str, Callable[[], Iterator[float]]] = {
    "constant": lambda: steps(30, 30, 0),
    "step": lambda: steps(10, 200, 120),
    "ramp": lambda: (min(400.0, 5 + s / 5) for s in itertools.count()),
    "bursts": lambda: bursts(10, 300, 600, 60),
    "sawtooth": lambda: sawtooth(5, 300, 300),
}


def unspoilt(reading: Reading) -> list[Reading]:
    return [reading]


@pytest.mark.parametrize("load", LOADS)
def test_whatever_comes_changes_are_few_and_apart(load: str) -> None:
    tenant = Tenant()
    tenant.play(LOADS[load](), 3600, unspoilt)

    moments = [at for at, *_ in tenant.changes]
    assert all(b - a >= 60 for a, b in itertools.pairwise(moments))
    assert len(moments) <= 10


def test_a_burst_of_ten_times_what_is_sustained_is_worked_off_within_five_minutes() -> None:
    """40 a second are sustained with 20 at once; 400 come for 30 seconds."""
    tenant = Tenant()
    tenant.play(bursts(20, 400, 10_000, 30), 330, unspoilt)

    assert max(tenant.lags) > 9_000
    assert tenant.lags[-1] < 10


def test_a_constant_load_has_its_limit_after_five_changes() -> None:
    tenant = Tenant()
    tenant.play(steps(300, 300, 0), 3600, unspoilt)

    assert len(tenant.changes) <= 5
    assert tenant.lags[-1] < 10


def test_handlers_that_only_time_out_get_nothing_more() -> None:
    tenant = Tenant(held_s=0.7, timeouts=1.0)
    tenant.play(steps(200, 200, 0), 1800, unspoilt)

    assert tenant.changes == []


@settings(max_examples=settings.default.max_examples // 4)
@given(st.integers(0, 10**6), st.sampled_from(sorted(LOADS)))
def test_gaps_delays_doubles_and_disorder_change_nothing_of_that(seed: int, load: str) -> None:
    tenant = Tenant(seed=seed)
    held: list[Reading] = []

    def disturb(reading: Reading) -> list[Reading]:
        held.append(reading)
        match tenant.random.randrange(6):
            case 0:
                return []  # a gap, or a delay: it may come later
            case 1:
                return [reading, reading]
            case 2:
                return [tenant.random.choice(held), reading]
            case 3:
                return [reading.evolve(value=None)]
            case 4:
                tenant.random.shuffle(held)
                return held[:3]
            case _:
                return [reading]

    tenant.play(LOADS[load](), 900, disturb)

    moments = [at for at, *_ in tenant.changes]
    assert all(b - a >= 60 for a, b in itertools.pairwise(moments))
    assert len(moments) <= 10
    assert all(20 <= after <= 500 for *_, after in tenant.changes)
