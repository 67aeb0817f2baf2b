"""A dashboard for Grafana (schema 39), over the metrics of ``/metrics``."""

import json
from typing import Any

_RATIO = (
    "1 - increase(ggen_objective_misses_total[$__range])"
    " / (increase(ggen_objective_events_total[$__range]) > 0)"
)
_PANELS: tuple[tuple[str, str, str, tuple[tuple[str, str], ...]], ...] = (
    ("Ready", "stat", "none", (("ggen_ready", "ready"),)),
    ("Safe mode", "stat", "none", (("ggen_degraded", "degraded"),)),
    ("Lease left", "stat", "s", (("ggen_lease_seconds", "lease"),)),
    ("Parked runs", "stat", "none", (('ggen_runs{state="parked"}', "parked"),)),
    ("Failed rollbacks", "stat", "none", (('ggen_actions{state="rollback_failed"}', "failed"),)),
    ("Undelivered alerts", "stat", "none", (("ggen_undelivered_alerts", "alerts"),)),
    ("Objectives attained, this range", "bargauge", "percentunit", ((_RATIO, "{{objective}}"),)),
    (
        "Misses",
        "timeseries",
        "short",
        (("increase(ggen_objective_misses_total[$__rate_interval])", "{{objective}}"),),
    ),
    (
        "Operations a second",
        "timeseries",
        "ops",
        (
            (
                "rate(ggen_operation_duration_seconds_count[$__rate_interval]) > 0",
                "{{operation}}",
            ),
        ),
    ),
    (
        "Actions: duration",
        "timeseries",
        "s",
        tuple(
            (
                f"histogram_quantile({share}, sum by (le) (rate("
                "ggen_operation_duration_seconds_bucket"
                '{operation="action_complete"}[$__rate_interval])))',
                name,
            )
            for share, name in ((0.5, "p50"), (0.99, "p99"))
        ),
    ),
    (
        "Actions under way",
        "timeseries",
        "short",
        (
            ("ggen_in_flight_actions", "in flight"),
            ("ggen_waiting_actions", "waiting"),
            ("ggen_busy_processes", "busy processes"),
        ),
    ),
    ("Oldest that waits", "timeseries", "s", (("ggen_waiting_oldest_seconds", "oldest"),)),
    (
        "Signals answered a second",
        "timeseries",
        "ops",
        (("sum by (verdict) (rate(ggen_signals_total[$__rate_interval]))", "{{verdict}}"),),
    ),
    (
        "Webhooks answered a second",
        "timeseries",
        "ops",
        (("sum by (outcome) (rate(ggen_webhooks_total[$__rate_interval]))", "{{outcome}}"),),
    ),
    (
        "Ledgers unsealed, commits spooled",
        "timeseries",
        "short",
        (("ggen_unsealed_ledgers", "unsealed"), ("ggen_spooled_commits", "spooled")),
    ),
)
"""Title, kind, unit, and queries with their legends."""


def dashboard() -> dict[str, Any]:
    """The dashboard's JSON, for Grafana's import."""
    return {
        "title": "ggen governor",
        "uid": "ggen-governor",
        "schemaVersion": 39,
        "timezone": "utc",
        "refresh": "10s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "type": "datasource", "query": "prometheus", "label": "from"}
            ]
        },
        "panels": [_panel(number, *each) for number, each in enumerate(_PANELS)],
    }


def dumped() -> str:
    """The dashboard as text."""
    return json.dumps(dashboard(), indent=1) + "\n"


def _panel(
    number: int, title: str, kind: str, unit: str, queries: tuple[tuple[str, str], ...]
) -> dict[str, Any]:
    stats = sum(each[1] == "stat" for each in _PANELS)
    place = number - stats
    at = (
        {"x": 4 * number, "y": 0, "w": 4, "h": 4}
        if kind == "stat"
        else {"x": 12 * (place % 2), "y": 4 + 8 * (place // 2), "w": 12, "h": 8}
    )
    return {
        "id": number + 1,
        "title": title,
        "type": kind,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
        "targets": [
            {"refId": chr(65 + n), "expr": query, "legendFormat": legend}
            for n, (query, legend) in enumerate(queries)
        ],
    }
