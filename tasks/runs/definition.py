"""What a runbook is made of: manual, steps with their undos, the receipts its runs end with.

The declaration is the source of its documentation too: ``ggen docs`` renders it. Each step is a
Celery task of its name, its undo one named ``….undo``, and the end of a run that was undone one
named ``runbook.undone``.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from governor.errors import ConflictError
from governor.fsm import RUN_UNDOING
from governor.runs import Effect, JournalEntry, Run, StepResult, Wait
from ports import Ports
from ports.alerts import Alert
from ports.documents import Create, Write
from tasks.manual import Manual

MAX_STEP_S = 30
"""A process that hangs in a step is killed after this long, before another may take the step over.
A step may look and then act for 10 s each where Pub/Sub does not answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a step did: facts for later steps, and writes to be committed with its journal entry.

    ``children`` are runs that the same commit creates. ``ends_with`` ends the run here, well, with
    a receipt that exists already.
    """

    facts: StepResult | None = None
    writes: Sequence[Write] = ()
    children: Sequence[Run] = ()
    ends_with: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a population: its writes, how many members it is, and where the next part begins.

    ``cursor`` None says that there is no next part.
    """

    cursor: str | None
    members: int
    writes: Sequence[Write] = ()
    children: Sequence[Run] = ()


Stuck = Callable[[Ports, Run, str, str, str], tuple[list[Create], Alert]]
"""What tells that a run cannot go on for now: its step, a code, and the reason in words."""


def _nothing(_ports: Ports, _run: Run) -> Result:
    return Result()


def _no_effects(_ports: Ports, _run: Run) -> dict[str, Effect]:
    return {}


def _nothing_to_undo(_ports: Ports, _run: Run, _entry: JournalEntry) -> None:
    """The step has no effect outside the run's own journal."""


def _is_ready(_ports: Ports, _run: Run) -> Wait | None:
    return None


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
        ready: what the step still waits for, read from stored state; None when it may act. While
            it waits no message and no process is held; its run is looked at every ``poll_s``.
        wait_limit_s: how long it waits at the most, and then
        when_late: acts all the same, or fails the run.
        chunk: for a step that works through a population, in the place of ``act``: the part that
            begins at a cursor ("" at first), each part one commit.
        undo_chunk: in the place of ``undo``, likewise.
        reads_only: ``act`` changes nothing, so that a plan may carry it out.
        alarm: the cause of a critical alert when the step fails for whatever reason.
        version: to be raised when what the step does, or its undo, changes.
        time_limit_s: Celery's hard limit of its task and of its undo's. Another process may take
            the step over a little later.
    """

    name: str
    at: str
    does: str
    undoes: str
    act: Callable[[Ports, Run], Result] = _nothing
    look: Callable[[Ports, Run], dict[str, Effect]] = _no_effects
    undo: Callable[[Ports, Run, JournalEntry], None] = _nothing_to_undo
    ready: Callable[[Ports, Run], Wait | None] = _is_ready
    wait_limit_s: float = 600
    when_late: Literal["fails", "acts"] = "fails"
    poll_s: float = 1
    chunk: Callable[[Ports, Run, str], Chunk] | None = None
    undo_chunk: Callable[[Ports, Run, str], Chunk] | None = None
    reads_only: bool = False
    alarm: str | None = None
    version: int = 1
    time_limit_s: float = MAX_STEP_S

    @property
    def has_effects(self) -> bool:
        """Whether it must be journalled before it acts: else there is nothing to undo."""
        return bool(self.undoes) or self.look is not _no_effects or self.chunk is not None

    @property
    def may_wait(self) -> bool:
        """Whether it may have something to wait for."""
        return self.ready is not _is_ready

    @property
    def undo_name(self) -> str:
        """The task that undoes it."""
        return f"{self.name}.undo"


@dataclass(frozen=True, slots=True)
class Runbook:
    """A recipe: its steps, the receipts its runs end with, and what follows a run's end.

    ``ended`` only brings Memory up to date; where it fails, admission does so by itself.
    ``deadline_s`` bounds a run from its first step to its end, waiting apart; None is the
    operator's ``GGEN_RUN_DEADLINE_S``. Once the step ``no_way_back`` is done, a run only goes
    forward: neither its deadline, nor an operator, nor a failure has it undone. A step that keeps
    failing is tried again for as long as it takes, and ``stuck`` tells the operator.
    """

    name: str
    manual: Manual
    steps: tuple[Step, ...]
    succeeded: Callable[[Ports, Run], tuple[Sequence[Write], Create]]
    refused: Callable[[Ports, Run, str], Sequence[Create]]
    ended: Callable[[Ports, Run], None]
    deadline_s: float | None = None
    no_way_back: str | None = None
    stuck: Stuck | None = None

    @property
    def inputs(self) -> type[BaseModel]:
        """What its runs are started with."""
        return self.manual.inputs

    @property
    def undone_name(self) -> str:
        """The task that ends a run after its undos."""
        return f"{self.name}.undone"

    def definition_sha256(self) -> str:
        """Changes when the steps, their order or their versions change."""
        definition = "\n".join(f"{step.name}@{step.version}" for step in self.steps)
        return hashlib.sha256(definition.encode()).hexdigest()

    def step(self, name: str) -> Step:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)

    def only_goes_forward(self, run: Run) -> bool:
        """Whether the run cannot be undone any more."""
        return self.no_way_back is not None and is_done(run, self.no_way_back)

    def is_next(self, run: Run, step: Step) -> bool:
        """Whether every step before this one is done."""
        return all(is_done(run, each.name) for each in self.steps[: self.steps.index(step)])

    def links(self, run: Run) -> list[tuple[str, float]]:
        """The tasks that take this run to its end from where it is, and their time limits."""
        if run.state in RUN_UNDOING:
            undos = [(s.undo_name, s.time_limit_s) for s in self.undoes(run)]
            return [*undos, (self.undone_name, MAX_STEP_S)]
        left = [s for s in self.steps if not is_done(run, s.name)] or self.steps[-1:]
        return [(step.name, step.time_limit_s) for step in left]

    def undoes(self, run: Run) -> list[Step]:
        """The steps whose undo this run still owes, the last one first."""
        return [step for step in reversed(self.steps) if _is_to_be_undone(run, step)]

    def unknown(self, run: Run) -> list[str]:
        """The steps of a run that may have acted, and that this version does not know."""
        names = {step.name for step in self.steps}
        return [
            name
            for name, entry in run.journal.items()
            if name not in names
            and entry.state in ("intent", "done")
            and (entry.effects or entry.members or entry.claim)
        ]


Runbooks = Mapping[str, Runbook]
"""The runbooks this version knows, by name."""


def is_done(run: Run, step_name: str) -> bool:
    """Whether the journal says the step is done."""
    entry = run.journal.get(step_name)
    return entry is not None and entry.state == "done"


def _is_to_be_undone(run: Run, step: Step) -> bool:
    entry = run.journal.get(step.name)
    return bool(step.undoes) and entry is not None and entry.state in ("intent", "done")


class ElsewhereError(ConflictError):
    """Another process moved this run, or another run has the turn."""
