"""What a runbook is made of: manual, steps with their undos, the receipts its runs end with.

The declaration is the source of its documentation too: ``ggen docs`` renders it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from governor.errors import ConflictError
from governor.runs import Effect, JournalEntry, Run
from ports import Ports
from ports.documents import Create, Write
from tasks.manual import Manual


@dataclass(frozen=True, slots=True)
class Result:
    """What a step did: facts for later steps, and writes to be committed with its journal entry.

    ``ends_with`` ends the run here, well, with a receipt that exists already.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    writes: Sequence[Write] = ()
    ends_with: str | None = None


def _no_effects(_ports: Ports, _run: Run) -> dict[str, Effect]:
    return {}


def _nothing_to_undo(_ports: Ports, _run: Run, _entry: JournalEntry) -> None:
    """The step has no effect outside the run's own journal."""


@dataclass(frozen=True, slots=True)
class Step:
    """One separately undoable link of a run.

    ``look`` says what ``act`` would do to each resource; ``act`` brings it about, idempotently, and
    leaves writes of Documents to the commit that ends the step; ``undo`` takes back what the entry
    says was this run's, and is idempotent too.

    Args:
        name: ``runbook.step``.
        at: what the step talks to, by its name in the diagram.
        does: in words, for the manual and the plan.
        undoes: the undo in words; empty when there is nothing to undo.
        reads_only: ``act`` changes nothing, so that a plan may carry it out.
        alarm: the cause of a critical alert when the step fails for whatever reason.
        version: to be raised when what the step does, or its undo, changes.
    """

    name: str
    at: str
    does: str
    undoes: str
    act: Callable[[Ports, Run], Result]
    look: Callable[[Ports, Run], dict[str, Effect]] = _no_effects
    undo: Callable[[Ports, Run, JournalEntry], None] = _nothing_to_undo
    reads_only: bool = False
    alarm: str | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Runbook:
    """A recipe: its steps, the receipts its runs end with, and what follows a run's end.

    ``ended`` only brings Memory up to date; where it fails, admission does so by itself.
    """

    name: str
    manual: Manual
    steps: tuple[Step, ...]
    succeeded: Callable[[Ports, Run], tuple[Sequence[Write], Create]]
    refused: Callable[[Ports, Run, str], Sequence[Create]]
    ended: Callable[[Ports, Run], None]

    def definition_sha256(self) -> str:
        """Changes when the steps, their order or their versions change."""
        definition = "\n".join(f"{step.name}@{step.version}" for step in self.steps)
        return hashlib.sha256(definition.encode()).hexdigest()

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)


RUNBOOKS_BY_NAME: dict[str, Runbook] = {}


class ElsewhereError(ConflictError):
    """Another process moved this run, or another run has the account's turn."""
