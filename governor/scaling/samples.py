"""Samples of an entitlement's load, two seconds apart, and the demand that they show."""

import itertools
from collections.abc import Sequence
from datetime import datetime

from pydantic import Field

from governor.records import Record, Timestamp
from governor.scaling.decision import BINDS, HIGHEST_OF_S, Demand, Need
from governor.scaling.readings import Reading, is_within
from governor.times import elapsed_ms, instant

KEPT = 16
"""Half a minute of samples: rates are means over it."""

_WINDOW_S, _BOUND_S, _SPANS_S = 32, 10, 7
_COUNTS = ("admitted", "refused", "pushed_back", "ended", "timed_out", "held_ms")


class Sample(Record):
    """Counts since Memory began to count, the actions in flight, and the readings of the lag."""

    at: Timestamp
    limit: int
    in_flight: int
    admitted: int = 0
    refused: int = Field(default=0, description="for concurrency")
    pushed_back: int = Field(default=0, description="of these, messages of its topic")
    ended: int = 0
    timed_out: int = 0
    held_ms: int = Field(default=0, description="for how long the ended ones held their places")
    readings: tuple[Reading, ...] = ()
    busy: int = Field(default=0, description="processes that carry out an action of any tenant")
    needs: tuple[Need, ...] = Field(
        default=(), description="of the last five minutes, the highest of each"
    )


def demand_of(samples: Sequence[Sample], now: datetime) -> Demand:
    """The demand that samples show, the newest last. Too few show none.

    Where a count is lower than before, Memory was lost between the two: they show nothing.
    """
    known = [each for each in samples if is_within(now, each.at, _WINDOW_S)]
    totals, seconds = dict.fromkeys(_COUNTS, 0), 0.0
    for before, after in itertools.pairwise(known):
        more = {name: getattr(after, name) - getattr(before, name) for name in _COUNTS}
        if min(more.values()) >= 0:
            seconds += elapsed_ms(before.at, instant(after.at)) / 1000
            totals = {name: totals[name] + more[name] for name in _COUNTS}
    if not seconds:
        return Demand()
    return Demand(
        bound_share=_bound_share(known, now),
        refused_per_s=totals["refused"] / seconds,
        pushed_back_per_s=totals["pushed_back"] / seconds,
        arrivals_per_s=totals["admitted"] / seconds + _growth_per_s(known),
        held_s=totals["held_ms"] / 1000 / totals["ended"] if totals["ended"] else 0,
        ended=totals["ended"],
        timed_out=totals["timed_out"],
    )


def remembered(needs: Sequence[Need], new: Need) -> tuple[Need, ...]:
    """What has been needed in the last five minutes, with ``new``: the highest of each minute."""
    now = instant(new.at)
    kept = [each for each in needs if is_within(now, each.at, HIGHEST_OF_S)]
    if kept and is_within(now, kept[-1].at, 60):
        newest = max((kept.pop(), new), key=lambda each: each.need)
        return (*kept, newest)
    return (*kept, new)


def _bound_share(known: Sequence[Sample], now: datetime) -> float:
    """The part of ten seconds in which the limit was nearly reached; 0 where they are not known."""
    recent = [each for each in known if is_within(now, each.at, _BOUND_S)]
    if not recent or is_within(now, recent[0].at, _SPANS_S):
        return 0
    bound = [each for each in recent if each.in_flight >= BINDS * each.limit]
    return len(bound) / len(recent)


def _growth_per_s(known: Sequence[Sample]) -> float:
    """By how many signals more wait each second, as far as our own readings tell."""
    known_own = [
        reading
        for each in known
        for reading in each.readings
        if reading.source == "own" and reading.value is not None
    ]
    if len(known_own) < 2:
        return 0
    seconds = elapsed_ms(known_own[0].as_of, instant(known_own[-1].as_of)) / 1000
    more = (known_own[-1].value or 0) - (known_own[0].value or 0)
    return max(0.0, more / seconds) if seconds else 0
