"""Alert rules for Prometheus, and the cases that ``promtool test rules`` plays on them.

Burn rates and windows are those of the SRE workbook (chapter 5), for 30 days: 14.4 in an hour, 6 in
six hours, 3 in a day, 1 in three. Traffic is low here, so that one miss of a few events would page:
an alert needs five misses as well. Of some operations each receipt alerts.
"""

from typing import Any

import yaml

from governor.slo.contract import EACH_COUNTS

_MISSES, _EVENTS = "ggen_objective_misses_total", "ggen_objective_events_total"
_TARGET = "ggen_objective_target_ratio"
AT_LEAST = 5
"""Misses in the long window before a burn rate alerts."""

BURNS = (
    (14.4, "1h", "5m", "page", 2, "one hour"),
    (6, "6h", "30m", "page", 5, "six hours"),
    (3, "1d", "2h", "ticket", 10, "one day"),
    (1, "3d", "6h", "ticket", 10, "three days"),
)
"""Rate, long window, short window, severity, the share of the budget spent, the window in words."""


def rules() -> dict[str, Any]:
    """The rule file, as YAML has it."""
    return {
        "groups": [
            {"name": "ggen-objectives", "rules": [_burn(*burn) for burn in BURNS]},
            {"name": "ggen-each-counts", "rules": [_missed(), *map(_each, EACH_COUNTS)]},
            {"name": "ggen-working", "rules": _working()},
        ]
    }


def _ratio(window: str) -> str:
    return f"increase({_MISSES}[{window}]) / (increase({_EVENTS}[{window}]) > 0)"


def _burn(
    rate: float, long: str, short: str, severity: str, share: int, words: str
) -> dict[str, Any]:
    allowed = f"on(objective, instance, job) ({rate} * (1 - ({_TARGET} < 1)))"
    return {
        "alert": f"GgenBudgetBurns{long}",
        "expr": f"({_ratio(long)}) > {allowed} "
        f"and ({_ratio(short)}) > {allowed} "
        f"and increase({_MISSES}[{long}]) >= {AT_LEAST}",
        "labels": {"severity": severity},
        "annotations": {
            "summary": f"{{{{ $labels.objective }}}}: {share} % of 30 days' misses in {words}",
            "description": "Look: ggen slo --since 1d; what to do: docs/incidents.md",
        },
    }


def _missed() -> dict[str, Any]:
    return {
        "alert": "GgenObjectiveMissed",
        "expr": f"increase({_MISSES}[1h]) > 0 and on(objective, instance, job) ({_TARGET} >= 1)",
        "labels": {"severity": "page"},
        "annotations": {
            "summary": "{{ $labels.objective }} allows no miss, and had one",
            "description": "Look: ggen slo --since 1h; what to do: docs/incidents.md",
        },
    }


def _each(operation: str) -> dict[str, Any]:
    words = operation.replace("_", " ")
    name = "".join(part.title() for part in operation.split("_"))
    count = f'ggen_operation_duration_seconds_count{{operation="{operation}"}}'
    return {
        "alert": f"Ggen{name}",
        "expr": f"increase({count}[1h]) > 0",
        "labels": {"severity": "page"},
        "annotations": {
            "summary": f"a receipt says {words}",
            "description": f"Look: ggen receipts --operation {operation}, for the account of the "
            "alert (ggen alerts list); what to do: docs/incidents.md",
        },
    }


def _working() -> list[dict[str, Any]]:
    table = (
        ("GgenAbsent", f"absent({_EVENTS})", "10m", "page", "no metrics of ggen: is it up?"),
        ("GgenNotReady", "ggen_ready == 0", "2m", "page", "something /readyz looks at is missing"),
        ("GgenRefuses", "ggen_lease_seconds == 0", "1m", "page", "nothing is admitted: no lease"),
        ("GgenDegraded", "ggen_degraded == 1", "5m", "page", "safe mode for five minutes"),
        ("GgenRunsParked", 'ggen_runs{state="parked"} > 0', "0m", "page", "an undo keeps failing"),
        ("GgenOrphans", "ggen_orphaned_actions > 0", "0m", "page", "actions were lost sight of"),
        (
            "GgenAlertsUndelivered",
            "ggen_undelivered_alerts > 0",
            "5m",
            "page",
            "alerts that no address takes",
        ),
        (
            "GgenQueueOld",
            "ggen_waiting_oldest_seconds > 10",
            "1m",
            "ticket",
            "accepted actions wait for a worker for longer than 10 s",
        ),
        (
            "GgenLedgersUnsealed",
            "ggen_sealed_ago_seconds > 60 or min_over_time(ggen_unsealed_ledgers[10m]) > 8",
            "5m",
            "ticket",
            "receipts wait to be sealed",
        ),
    )
    return [
        {
            "alert": name,
            "expr": expression,
            "for": lasting,
            "labels": {"severity": severity},
            "annotations": {
                "summary": summary,
                "description": "Look: ggen status; what to do: docs/incidents.md",
            },
        }
        for name, expression, lasting, severity, summary in table
    ]


def dumped(document: Any) -> str:
    """A document as YAML, under the words that say where it comes from."""
    head = "# rendered by `ggen docs` from governor/slo/contract.py; change it there\n"
    return head + yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
