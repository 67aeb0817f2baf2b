"""How many signals wait, as of when, by whom: an unknown number is never 0 (D25)."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal

from pydantic import Field

from governor.records import Record, Timestamp
from governor.times import instant

LAGGING = 10
"""More signals than this that wait are a lag (the contract)."""

Source = Literal["own", "monitoring"]

_FRESH_S: dict[Source, float] = {"own": 5, "monitoring": 180}
"""How old a reading may be; an older one is unknown."""


class Reading(Record):
    """How many signals wait, and as of when; ``value`` None: unknown."""

    value: int | None = Field(ge=0)
    as_of: Timestamp
    source: Source = "own"


def is_within(now: datetime, since: str | None, seconds: float) -> bool:
    """Whether a moment is at most so long ago; one ahead of this clock is."""
    return since is not None and now - instant(since) <= timedelta(seconds=seconds)


def fresh(readings: Iterable[Reading], now: datetime) -> list[Reading]:
    """Those that are known and young enough, once each, oldest first."""
    found = {
        (each.source, each.as_of): each
        for each in readings
        if each.value is not None and is_within(now, each.as_of, _FRESH_S[each.source])
    }
    return sorted(found.values(), key=lambda each: each.as_of)


def own(readings: Iterable[Reading], now: datetime) -> Reading | None:
    """The newest of our own: only these may lower a limit."""
    return next((r for r in reversed(fresh(readings, now)) if r.source == "own"), None)


def highest(readings: Iterable[Reading], now: datetime) -> Reading | None:
    """The highest of the newest of each source."""
    newest = {each.source: each for each in fresh(readings, now)}
    return max(newest.values(), key=lambda each: each.value or 0, default=None)


def lags(readings: Iterable[Reading], now: datetime) -> bool:
    """Whether two distinct samples of one source, the newest ones, are above ten."""
    known = fresh(readings, now)
    for source in _FRESH_S:
        values = [each.value or 0 for each in known if each.source == source]
        if len(values) >= 2 and min(values[-2:]) > LAGGING:
            return True
    return False
