"""What a runbook is made of: steps, each with its undo, and the receipts its runs end with."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from governor.errors import ConflictError
from governor.fsm import RunState
from governor.records import JournalEntry, Run
from ports import Ports
from ports.documents import Create, Write

OPEN = (RunState.PENDING, RunState.RUNNING, RunState.COMPENSATING)
"""The states a run does not end in."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a step did: facts for later steps, and writes to be committed with its journal entry.

    ``ends_with`` ends the run here, well, with a receipt that exists already.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    writes: Sequence[Write] = ()
    ends_with: str | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """One link of a chain.

    ``look`` says which effects are not there yet, so that this run would create them; ``act``
    brings them about, idempotently; ``undo`` removes what ``entry.created`` says was ours.
    """

    name: str
    look: Callable[[Ports, Run], dict[str, bool]]
    act: Callable[[Ports, Run], Result]
    undo: Callable[[Ports, Run, JournalEntry], None]


@dataclass(frozen=True, slots=True)
class Runbook:
    """A recipe: its steps, the receipts its runs end with, and what follows a run's end.

    ``ended`` only brings Memory up to date; where it fails, admission does so by itself.
    """

    name: str
    steps: tuple[Step, ...]
    succeeded: Callable[[Ports, Run], tuple[Sequence[Write], Create]]
    refused: Callable[[Ports, Run, str], Create]
    ended: Callable[[Ports, Run], None]

    def definition_sha256(self) -> str:
        """Changes when the steps or their order change."""
        return hashlib.sha256("\n".join(s.name for s in self.steps).encode()).hexdigest()


RUNBOOKS_BY_NAME: dict[str, Runbook] = {}


class ElsewhereError(ConflictError):
    """Another process moved this run, or another run has the account's turn."""
