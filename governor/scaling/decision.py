"""The limit to be, decided from readings, within quota and capacity (Runbook 3, D24, D25).

The need follows Little's law: arrivals a second times the seconds that a place is held, and the
backlog, to be worked off in four minutes. Everything else here says when not to believe that.
Pure: a decision can be made again from its inputs.
"""

import math
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import Field

from governor.records import Record, Timestamp
from governor.scaling import readings
from governor.scaling.cost import affordable
from governor.scaling.history import MOST_CHANGES_AN_HOUR
from governor.scaling.readings import LAGGING, Reading, is_within
from governor.times import instant

WORKED_OFF_IN_S = 240
COOL_UP_S, COOL_DOWN_S = 60, 600
HIGHEST_OF_S = 300
"""On the way down the highest need of so long a time counts."""

_TOLERANCE = 0.1
_TIMEOUTS, _TIMEOUTS_OF = 0.2, 20
BINDS = 0.8
_FALLS_TO = 0.6
_KNOWN_FOR_S = 240
"""For how long the need must be known before a limit falls."""

Why = Literal[
    "lag",
    "idle",
    "enough",
    "lag-unknown",
    "not-binding",
    "handlers-timing-out",
    "backing-off",
    "cooling-down",
    "too-many-changes",
    "plan",
    "month",
    "budget",
    "capacity",
    "workers-unknown",
    "paused",
]
FORBIDDEN: tuple[Why, ...] = ("plan", "month", "budget", "capacity")
"""Why a limit that would help is not raised: each is refused with a receipt."""


class Need(Record):
    """What was reckoned to be needed at a moment."""

    at: Timestamp
    need: int


class Demand(Record):
    """What was asked of an entitlement lately, and what became of it."""

    bound_share: float = Field(
        default=0, description="of the last ten seconds, in which 80 % of the limit was in flight"
    )
    refused_per_s: float = Field(default=0, description="for concurrency")
    pushed_back_per_s: float = Field(
        default=0, description="of these, messages of a topic, which wait there and come again"
    )
    arrivals_per_s: float = Field(
        default=0, description="admitted, and by how much more wait each second"
    )
    held_s: float = Field(default=0, description="mean time that a place is held, its undo too")
    ended: int = 0
    timed_out: int = 0


class Inputs(Demand):
    """All that a decision is made from; its digest stands in the receipt."""

    at: Timestamp
    limit: int = Field(ge=1, description="in force")
    floor: int = Field(ge=1, description="it falls no lower than this by itself")
    ceiling: int = Field(ge=1, description="how far the plan lets it go")
    readings: tuple[Reading, ...] = ()
    in_flight: int = 0
    free_workers: int | None = Field(default=None, description="None: unknown")
    month_left: int = Field(description="actions of the plan's month")
    budget_left_usd: Decimal
    price_month_usd: Decimal = Field(description="of one more at once")
    changed_at: Timestamp | None = None
    changes_last_hour: int = 0
    backing_off_until: Timestamp | None = None
    paused_until: Timestamp | None = None
    needs: tuple[Need, ...] = Field(default=(), description="of the last five minutes")


class Decision(Record):
    """The limit to be, and why.

    ``wanted``: the limit that would be, were nothing forbidden. ``need``: what was reckoned to be
    needed. ``lag``: the reading that was believed.
    """

    limit: int
    why: Why
    wanted: int
    need: int
    lag: Reading | None = None


def decide(inputs: Inputs) -> Decision:
    """The limit to be from now on. It stays wherever something needed is unknown."""
    now = instant(inputs.at)
    need, own = _needed(inputs, now), readings.own(inputs.readings, now)
    believed = own or readings.highest(inputs.readings, now)

    def decided(limit: int, why: Why, wanted: int = 0) -> Decision:
        return Decision(limit=limit, why=why, wanted=wanted or limit, need=need, lag=believed)

    if is_before(now, inputs.paused_until):
        return decided(inputs.limit, "paused")
    if readings.lags(inputs.readings, now) or inputs.refused_per_s > 0:
        if need > inputs.limit * (1 + _TOLERANCE):
            return decided(*_raised(inputs, now, need))
        return decided(inputs.limit, "enough")
    if own is None:
        return decided(inputs.limit, "lag-unknown")
    if (own.value or 0) > LAGGING:
        return decided(inputs.limit, "enough")
    return decided(*_lowered(inputs, now, need))


def _raised(inputs: Inputs, now: datetime, need: int) -> tuple[int, Why, int]:
    """A higher limit, or why not: what keeps it from helping comes before what forbids it."""
    limit = inputs.limit
    if why := _would_not_help(inputs) or _is_too_soon(inputs, now, COOL_UP_S):
        return limit, why, limit
    wanted = min(need, max(2 * limit, limit + 10))
    bounds: tuple[tuple[int, Why], ...] = (
        (inputs.ceiling, "plan"),
        (limit if inputs.month_left <= 0 else wanted, "month"),
        (limit + affordable(inputs.budget_left_usd, inputs.price_month_usd, now), "budget"),
    )
    lowest, why = min(bounds, key=lambda bound: bound[0])
    if lowest <= limit:
        return limit, why, wanted
    allowed = min(wanted, lowest)
    if inputs.free_workers is None:
        return limit, "workers-unknown", allowed
    if inputs.free_workers <= 0:
        return limit, "capacity", allowed
    return min(allowed, limit + inputs.free_workers), "lag", allowed


def _would_not_help(inputs: Inputs) -> Why | None:
    if inputs.ended >= _TIMEOUTS_OF and inputs.timed_out > _TIMEOUTS * inputs.ended:
        return "handlers-timing-out"
    is_binding = inputs.bound_share >= BINDS and inputs.refused_per_s > 0
    return None if is_binding else "not-binding"


def _is_too_soon(inputs: Inputs, now: datetime, cool_s: float) -> Why | None:
    if is_before(now, inputs.backing_off_until) and cool_s == COOL_UP_S:
        return "backing-off"
    if is_within(now, inputs.changed_at, cool_s):
        return "cooling-down"
    return "too-many-changes" if inputs.changes_last_hour >= MOST_CHANGES_AN_HOUR else None


def _lowered(inputs: Inputs, now: datetime, need: int) -> tuple[int, Why]:
    """A lower limit, by a few steps; never below the floor, nor the actions in flight."""
    if not inputs.needs or is_within(now, inputs.needs[0].at, _KNOWN_FOR_S):
        return inputs.limit, "enough"  # too little is known yet
    recent = [each.need for each in inputs.needs if is_within(now, each.at, HIGHEST_OF_S)]
    highest = max([need, *recent])
    least = max(inputs.floor, inputs.in_flight, highest, math.ceil(inputs.limit * _FALLS_TO))
    if least >= inputs.limit or highest >= inputs.limit * (1 - _TOLERANCE):
        return inputs.limit, "enough"
    if why := _is_too_soon(inputs, now, COOL_DOWN_S):
        return inputs.limit, why
    return least, "idle"


def _needed(inputs: Inputs, now: datetime) -> int:
    """By Little's law; a topic's refused messages wait there, and are counted as waiting."""
    waiting = readings.highest(inputs.readings, now)
    backlog = max(0, (waiting.value or 0) - LAGGING) if waiting else 0
    demand = inputs.arrivals_per_s + inputs.refused_per_s - inputs.pushed_back_per_s
    return max(1, math.ceil(inputs.held_s * (demand + backlog / WORKED_OFF_IN_S)))


def is_before(now: datetime, until: str | None) -> bool:
    """Whether a moment is still to come."""
    return until is not None and now < instant(until)
