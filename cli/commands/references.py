"""``ggen docs``: the reference pages of settings, policies and metrics, from their declarations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from cli.monitoring import grafana, openslo, prometheus
from config.settings import Settings, variable
from governor import policy
from ingress.routes import metrics

_HEAD = "<!-- rendered by `ggen docs` from {}; change it there -->"

_PARTS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The document", policy.Policy),
    ("`quota`", policy.Quota),
    ("`quota.prices`", policy.Prices),
    ("Each of `actions`", policy.ActionSpec),
    ("Each of `transitions`", policy.Transition),
)


def pages() -> dict[str, str]:
    """File name -> its text."""
    return {"metrics.md": _metrics(), "policy.md": _policy(), "settings.md": _settings()}


def monitoring() -> dict[str, str]:
    """File name below ``deploy/`` -> its text: what monitoring takes."""
    return {
        "prometheus/rules.yml": prometheus.dumped(prometheus.rules()),
        "slo/objectives.yml": openslo.dumped(),
        "grafana/dashboard.json": grafana.dumped(),
    }


def _metrics() -> str:
    known = [*REGISTRY.collect(), *metrics.MEASURED.families()]
    families = [f for f in known if f.name.startswith("ggen_")]
    rows = [
        (f"`{_exposed(f)}`", f.type, _labels(f), f.documentation)
        for f in sorted(families, key=lambda f: f.name)
    ]
    return (
        f"# Metrics\n\n{_HEAD.format('`ingress/routes/metrics.py`')}\n\n"
        "`GET /metrics`, in the text format of Prometheus, without a token. No label names a\n"
        "tenant: the number of series does not grow with tenants. Those of operations and\n"
        "objectives are counted when receipts are sealed. They begin at 0 after a loss of Memory;\n"
        "`ggen slo` reads the record instead. Alert rules for them are in `deploy/prometheus/`.\n\n"
        + _table(("metric", "type", "labels", "what it is"), rows)
    )


def _exposed(family: Metric) -> str:
    return family.name + ("_total" if family.type == "counter" else "")


def _labels(family: Metric) -> str:
    """The names of its labels, of every sample or, before the first one, as it was declared."""
    names = {name for sample in family.samples for name in sample.labels} - {"le"}
    declared = next(
        (m._labelnames for m in vars(metrics).values() if getattr(m, "_name", "") == family.name),
        (),
    )
    return ", ".join(f"`{name}`" for name in sorted(names | set(declared))) or "none"


def _settings() -> str:
    rows = [
        (f"`{variable(name)}`", _default(field), _bounds(Settings, name), field.description or "")
        for name, field in Settings.model_fields.items()
    ]
    return (
        f"# Settings\n\n{_HEAD.format('`config/settings.py`')}\n\n"
        "Each is a variable of the environment, read once when a process starts. Another name\n"
        "that begins with `GGEN_` is an error.\n\n"
        + _table(("variable", "default", "bounds", "what it is"), rows)
    )


def _policy() -> str:
    parts = [
        f"# Policies\n\n{_HEAD.format('`governor/policy.py`')}\n\n"
        "A policy is one JSON document for a SKU, a plan and a version. Other members are\n"
        "refused. [actions.md](../actions.md) has an example."
    ]
    for title, model in _PARTS:
        rows = [
            (f"`{name}`", _default(field), _bounds(model, name), field.description or "")
            for name, field in model.model_fields.items()
        ]
        table = _table(("member", "default", "bounds", "what it is"), rows)
        parts.append(f"## {title}\n\n{(model.__doc__ or '').strip()}\n\n{table}")
    return "\n\n".join(parts)


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if isinstance(value, BaseModel):
        return "its own defaults"
    if isinstance(value, frozenset | tuple):
        return ", ".join(f"`{each}`" for each in sorted(value)) or "none"
    return f"`{value}`" if str(value) else "empty"


def _bounds(model: type[BaseModel], name: str) -> str:
    schema = model.model_json_schema(by_alias=False)
    return ", ".join(_said(schema["properties"].get(name, {}), schema))


def _said(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    """What a JSON Schema says of the values of one member."""
    for each in field.get("anyOf", field.get("allOf", [field])):
        one = schema["$defs"][each["$ref"].rpartition("/")[2]] if "$ref" in each else each
        if one.get("type") == "null":
            continue
        if "enum" in one or "const" in one:
            yield " or ".join(f"`{value}`" for value in one.get("enum", [one.get("const")]))
            return
        kind = {"array": "list", "object": "object", "string": "text"}.get(one.get("type", ""))
        yield kind or one.get("type", "any")
        bounds = (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
            ("maxLength", "length ≤"),
            ("minProperties", "members ≥"),
            ("maxProperties", "members ≤"),
            ("maxItems", "entries ≤"),
        )
        for word, sign in bounds:
            if word in one:
                yield (
                    f"{sign} {one[word]:g}"
                    if isinstance(one[word], float)
                    else f"{sign} {one[word]}"
                )
        if "pattern" in one:
            yield f"`{one['pattern']}`".replace("|", "\\|")
        return


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    cleaned = [[" ".join(cell.split()) for cell in row] for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *cleaned]]
    return "\n".join(lines) + "\n"
