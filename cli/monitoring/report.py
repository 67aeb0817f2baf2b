"""``ggen slo``: how far each objective was met, from the receipts alone."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from cli.output import counting
from cli.stores import opened
from governor.errors import InputError
from governor.slo.objective import WINDOW_DAYS, Attainment
from governor.times import instant, timestamp
from tasks.ledgers import measure

_UNITS = {"m": "minutes", "h": "hours", "d": "days"}


def slo(since: str) -> tuple[dict[str, Any], str]:
    """The attainments since then, as JSON and as lines of 80 characters.

    Raises:
        InputError: ``since`` is no duration and no time.
        OutageError: Documents do not answer.
    """
    ports = opened()
    began = moment(since or f"{WINDOW_DAYS}d", ports.clock.now())
    with counting("receipts read") as reading:
        found = measure.attainments(ports, began, reading)
    rows = [_row(each) for each in found.values()]
    told = {"since": timestamp(began), "until": timestamp(ports.clock.now()), "objectives": rows}
    return told, "\n".join([_head(told), *(line for row in rows for line in _lines(row))])


def moment(since: str, now: datetime) -> datetime:
    """``30d``, ``12h``, ``5m``, or a time of RFC 3339; UTC where it names no zone."""
    if found := re.fullmatch(r"([1-9][0-9]{0,4})([mhd])", since):
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = instant(since)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except ValueError:
        raise InputError(
            "bad-since", f"--since is like 30d, 12h, 5m or 2026-11-27T00:00:00Z, not {since!r}"
        ) from None


def _row(attained: Attainment) -> dict[str, Any]:
    objective = attained.objective
    return {
        "objective": objective.name,
        "measure": objective.measure,
        "bar": objective.bar,
        "target": objective.target,
        "unit": objective.unit,
        "events": attained.events,
        "misses": attained.bad,
        "attained": attained.attained,
        "met": attained.is_met,
        "budget_left": attained.budget_left,
        "p50": attained.quantile(0.5),
        "p99": attained.quantile(0.99),
    }


def _head(told: dict[str, Any]) -> str:
    days = (instant(told["until"]) - instant(told["since"])).total_seconds() / 86_400
    span = f"{days:.0f} days" if days >= 2 else f"{days * 24:.1f} hours"
    return (
        f"the last {span}, by the receipts\n"
        f"{'objective':<28} {'bar':>8} {'events':>7} {'misses':>6} "
        f"{'p50':>6} {'p99':>7}  budget left"
    )


def _lines(row: dict[str, Any]) -> list[str]:
    p50, p99 = (f"{row[name]:.0f}" if row[name] is not None else "-" for name in ("p50", "p99"))
    return [
        f"{row['objective']:<28} {row['bar']:>8} {row['events']:>7} {row['misses']:>6} "
        f"{p50:>6} {p99:>7}  {_budget(row)}"
    ]


def _budget(row: dict[str, Any]) -> str:
    """A bar of the error budget that is left, or why there is none; ten columns."""
    if not row["events"]:
        return "no events"
    if row["budget_left"] is None:
        return "none, kept" if row["met"] else "MISSED"
    if not row["met"]:
        return "overspent"
    return f"{'█' * round(5 * row['budget_left']):<5} {row['budget_left']:>4.0%}"
