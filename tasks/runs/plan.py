"""What a run would do, in which order, and how each step is undone; nothing is touched."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from governor import paths
from governor.errors import GovernorError, OutageError
from governor.runs import Effect, JournalEntry, Run
from ports import Ports
from tasks.runs.definition import Runbook
from tasks.runs.journal import with_entry


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """What one step would do to each resource, and how it would be undone."""

    name: str
    does: str
    undoes: str
    effects: Mapping[str, Effect]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do; ``refusal`` where it would be refused, ``waits_for`` a run before it."""

    steps: list[PlannedStep] = field(default_factory=list)
    refusal: tuple[str, GovernorError] | None = None
    ends_with: str | None = None
    waits_for: str | None = None


def plan(ports: Ports, runbook: Runbook, run: Run) -> Plan:
    """What ``run``, which is not stored, would do, step by step.

    Raises:
        OutageError: a store does not answer.
    """
    turn = ports.documents.get(paths.turn_path(run.turn))
    planned: list[PlannedStep] = []
    waits_for = str(turn.data["run_id"]) if turn else None
    for step in runbook.steps:
        try:
            effects = step.look(ports, run)
            facts = step.act(ports, run) if step.reads_only else None
        except OutageError:
            raise
        except GovernorError as error:
            return Plan(planned, (step.name, error), None, waits_for)
        planned.append(PlannedStep(step.name, step.does, step.undoes, effects))
        if facts is not None and facts.ends_with:
            return Plan(planned, None, facts.ends_with, waits_for)
        told = facts.facts.document() if facts and facts.facts else {}
        entry = JournalEntry(state="done", result=told)
        run = with_entry(run, step.name, entry)
    return Plan(planned, None, None, waits_for)
