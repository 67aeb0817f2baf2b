"""``ggen docs``: the manuals of all runbooks, rendered from their declarations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from cli.commands import references
from governor.errors import ConflictError, InputError
from governor.slo.objective import WINDOW_DAYS, Objective
from ledger import contracts
from tasks.manual import Door, Manual
from tasks.runbooks import (
    customer_cancels,
    degrade_to_safe_mode,
    deploy_sku,
    entitlement_lifecycle,
    entitlement_standing,
    recover_action,
    scale_governor,
    tenant_purge,
    upgrade_policy,
)
from tasks.runs.definition import MAX_STEP_S, Step
from tasks.runs.journal import STEP_MAX_AGE_S

FOLDER = Path("docs/runbooks")
DECLARED: Mapping[str, tuple[Manual, Sequence[Step]]] = {
    "customer-cancels": (customer_cancels.MANUAL, customer_cancels.RUNBOOK.steps),
    "degrade-to-safe-mode": (degrade_to_safe_mode.MANUAL, ()),
    "deploy-sku": (deploy_sku.MANUAL, deploy_sku.STEPS),
    "entitlement-lifecycle": (
        entitlement_lifecycle.MANUAL,
        entitlement_lifecycle.RUNBOOK.steps,
    ),
    "entitlement-standing": (
        entitlement_standing.MANUAL,
        entitlement_standing.RUNBOOK.steps,
    ),
    "recover-action": (recover_action.MANUAL, ()),
    "scale-governor": (scale_governor.MANUAL, scale_governor.RUNBOOK.steps),
    "tenant-purge": (tenant_purge.MANUAL, tenant_purge.RUNBOOK.steps),
    "upgrade-policy": (upgrade_policy.MANUAL, upgrade_policy.RUNBOOK.steps),
}


def pages() -> dict[str, str]:
    """File name -> its text, of every runbook declared."""
    return {f"{name}.md": _page(*declared) for name, declared in DECLARED.items()}


def render(folder: Path, *, check: bool) -> list[str]:
    """Write the pages that are not as they should be, or with ``check`` only name them.

    Raises:
        ConflictError: ``check``, and some are not; nothing was written.
        InputError: the folder cannot be written.
    """
    wanted = {folder / name: text for name, text in pages().items()}
    reference = folder.parent / "reference"
    wanted |= {reference / name: text for name, text in references.pages().items()}
    deploy = folder.parent.parent / "deploy"
    wanted |= {deploy / name: text for name, text in references.monitoring().items()}
    stale = [path.name for path, text in wanted.items() if _read(path) != text]
    if check and stale:
        raise ConflictError(
            "stale-docs", f"not as declared: {', '.join(stale)}. Write them with: ggen docs"
        )
    try:
        for path, text in wanted.items():
            if path.name in stale:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
    except OSError as error:
        raise InputError("unwritable", f"cannot write {folder}: {error.strerror}") from error
    return stale


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None


def _page(manual: Manual, steps: Sequence[Step]) -> str:
    sections = [
        f"# Runbook {manual.number}: {manual.title}",
        "<!-- rendered by `ggen docs` from the runbook's declaration; change it there -->",
        manual.purpose,
        f"**Trigger**: {manual.trigger}.",
        "## Inputs",
        _table(("input", "type", "rule", "meaning"), _inputs(manual.inputs)),
        "## Outputs",
        "\n".join(f"- {output}" for output in manual.outputs),
        "## Sequence",
        _sequence(manual, manual.door, steps) if manual.door else _drawn(manual.sequence),
        *(_steps(steps) if steps else ()),
        "## When it does not succeed",
        _table(("cause", "what comes of it"), manual.refusals),
        "## SLIs",
        _slis(manual.slis),
        "## Receipts",
        _receipts(manual.receipts),
    ]
    return "\n\n".join(sections) + "\n"


def _steps(steps: Sequence[Step]) -> Sequence[str]:
    return (
        "## Steps and their undos",
        "Each step is a Celery task of its name, and its undo one named `….undo`. The intent, and "
        "so the undo, is journalled before a step with effects acts. An undo takes back only "
        "what the run created. A step that hangs is killed after "
        f"{MAX_STEP_S} s, and taken over by another process after {STEP_MAX_AGE_S} s at the "
        "latest; at once when its process is gone.",
        _table(
            ("step", "does", "undo"),
            [(f"`{s.name}`", _does(s), s.undoes or "nothing to undo") for s in steps],
        ),
    )


def _does(step: Step) -> str:
    limit_s = step.time_limit_s
    return step.does if limit_s == MAX_STEP_S else f"{step.does} (killed after {limit_s:g} s)"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _inputs(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    return [
        (f"`{name}`", *_type(field), field.get("description", ""))
        for name, field in model.model_json_schema()["properties"].items()
    ]


def _type(field: Mapping[str, Any]) -> tuple[str, str]:
    for kind in field.get("anyOf", ()):
        if kind.get("type") != "null":
            return _type(kind)
    if "enum" in field:
        return "one of", ", ".join(f"`{value}`" for value in field["enum"])
    return field.get("type", ""), f"`{field['pattern']}`" if "pattern" in field else ""


def _slis(objectives: Sequence[Objective]) -> str:
    if not objectives:
        return "None by the contract."
    rows = [(f"`{o.name}`", o.measure, o.bar, f"{o.target * 100:g} %") for o in objectives]
    told = f"Measured from the receipts, over {WINDOW_DAYS} days: `ggen slo`."
    return f"{told}\n\n{_table(('objective', 'measure', 'bar', 'target'), rows)}"


def _receipts(operations: Sequence[str]) -> str:
    rows = []
    for operation in operations:
        fields = contracts.MODELS[operation].model_fields
        rows.append((f"`{operation}`", ", ".join(f"`{name}`" for name in fields)))
    told = "Signed, committed with the state they speak of; `ggen schema OPERATION` prints one."
    return f"{told}\n\n{_table(('operation', 'fields'), rows)}"


def _sequence(manual: Manual, door: Door, steps: Sequence[Step]) -> str:
    """The happy path, and what becomes of a failure, as a Mermaid sequence diagram."""
    stores = dict.fromkeys(["Documents", *(step.at for step in steps)])
    closing = [step for step in steps if not step.undoes and not step.reads_only]
    closing = closing[-1:] if manual.is_one_way else closing
    commit = closing[0].does if closing else f"commit the end and {manual.receipts[0]} together"
    happy = [f"Run->>{step.at}: {step.does}" for step in steps if step not in closing]
    undos = [f"Run->>{step.at}: {step.undoes}" for step in reversed(steps) if step.undoes]
    undone = [
        "else a step is refused, or its outage outlasts the run's deadline",
        *(f"  {line}" for line in undos),
        f"  Run->>Documents: commit the end and {manual.refused_with} together",
        f"  {door.at}-->>{door.asker}: {door.badly}",
        "else an undo fails five times",
        "  Run->>Documents: park the run, with compensation_failed",
        "  Run->>Alerts: critical alert, and the undo is tried again later",
    ]
    lines = [
        "sequenceDiagram",
        f"participant {door.asker}",
        f"participant {door.at}",
        "participant Run as Run (a chain of tasks)",
        *(f"participant {name}" for name in stores),
        "participant Alerts",
        f"{door.asker}->>{door.at}: {door.asks}",
        f"alt {door.wrong[0]}",
        f"  {door.at}-->>{door.asker}: {door.wrong[1]}",
        "else accepted",
        f"  {door.at}->>Documents: create the run (the claim of what began it)",
        f"  {door.at}->>Run: a chain, one task a step",
        *(f"  {line}" for line in happy),
        "  alt every step done",
        f"    Run->>Documents: {commit}",
        f"    {door.at}-->>{door.asker}: {door.well}",
        *(f"  {line}" for line in (_held(manual) if manual.is_one_way else undone)),
        "  else the worker is killed, or a message is lost",
        "    Note over Run: the reaper sends the rest of the chain within seconds",
        "  end",
        "end",
    ]
    return _drawn(lines)


def _held(manual: Manual) -> Sequence[str]:
    """What becomes of a failure where there is no way back."""
    return (
        "else a step keeps failing",
        f"  Run->>Documents: {manual.refused_with}, once",
        "  Run->>Alerts: critical alert",
        "  Note over Run: the step is tried again until it succeeds, and the run goes on",
    )


def _drawn(lines: Sequence[str]) -> str:
    return "```mermaid\n" + "\n    ".join(lines) + "\n```"
