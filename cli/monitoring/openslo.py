"""The objectives as OpenSLO v1 documents (github.com/OpenSLO/OpenSLO, kinds Service and SLO).

A target is below 1 there: objectives that allow no miss are alert rules alone.
"""

from typing import Any

import yaml

from governor.slo.contract import OBJECTIVES
from governor.slo.objective import WINDOW_DAYS, Objective


def documents() -> list[dict[str, Any]]:
    """The service, then one SLO for each objective with an error budget."""
    service = {
        "apiVersion": "openslo/v1",
        "kind": "Service",
        "metadata": {"name": "ggen-governor", "displayName": "ggen governor"},
        "spec": {"description": "Operations of a SaaS that run themselves, with receipts"},
    }
    return [service, *(_slo(each) for each in OBJECTIVES.values() if not each.each_counts)]


def dumped() -> str:
    """All documents in one YAML stream."""
    return yaml.safe_dump_all(documents(), sort_keys=False, width=100, allow_unicode=True)


def _slo(objective: Objective) -> dict[str, Any]:
    name = objective.name.replace("_", "-")
    return {
        "apiVersion": "openslo/v1",
        "kind": "SLO",
        "metadata": {"name": name, "displayName": f"{objective.measure}: {objective.bar}"},
        "spec": {
            "description": f"{objective.measure}: {objective.bar}",
            "service": "ggen-governor",
            "indicator": {
                "metadata": {"name": name},
                "spec": {
                    "ratioMetric": {
                        "counter": True,
                        "bad": _source("ggen_objective_misses_total", objective),
                        "total": _source("ggen_objective_events_total", objective),
                    }
                },
            },
            "timeWindow": [{"duration": f"{WINDOW_DAYS}d", "isRolling": True}],
            "budgetingMethod": "Occurrences",
            "objectives": [{"displayName": objective.bar, "target": objective.target}],
        },
    }


def _source(metric: str, objective: Objective) -> dict[str, Any]:
    query = f'{metric}{{objective="{objective.name}"}}'
    return {"metricSource": {"type": "Prometheus", "spec": {"query": query}}}
