"""A step of a run as one process holds it, and the revision that fences its next write."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from governor import paths
from governor.errors import ConflictError
from governor.runs import JournalEntry, Run
from ports import Ports
from ports.documents import Document, Update, Write
from tasks.receipts.commit import commit_once
from tasks.runs.definition import ElsewhereError
from tasks.runs.journal import with_entry


@dataclass(slots=True)
class Fenced:
    """``stored`` is the journal's entry of the step as the store has it; ``entry`` as it will be.

    ``done`` is the entry that ends the step, once its commit was tried: it may have landed.
    ``has_begun`` says that it acts, or may have acted: it waits no more. ``is_current`` says that
    the store has the run as it is here, as far as this process knows.
    """

    run: Run
    revision: str
    step_name: str
    stored: JournalEntry | None
    entry: JournalEntry
    done: JournalEntry | None = None
    is_current: bool = True
    has_begun: bool = False

    @classmethod
    def at(cls, found: Document, run: Run, step_name: str) -> Self:
        """A run as it was just read, at one of its steps."""
        stored = run.journal.get(step_name)
        entry = stored or JournalEntry(state="intent")
        has_begun = stored is not None and stored.state == "intent"
        return cls(run, found.revision, step_name, stored, entry, has_begun=has_begun)

    def update(self, run: Run) -> Update:
        """The write that stores the run like this."""
        return Update(paths.run_path(run.run_id), run.document(), self.revision)

    def save(self, ports: Ports, run: Run, entry: JournalEntry, writes: Sequence[Write]) -> None:
        """Store the run with this entry, and what it tells of.

        Raises:
            ElsewhereError: the run was moved meanwhile, or a document that ``writes`` change.
        """
        moved = with_entry(run, self.step_name, entry)
        try:
            self.revision, *_ = commit_once(ports, [self.update(moved), *writes])
        except ConflictError as error:
            raise ElsewhereError(error.code, error.detail) from error
        self.run, self.stored, self.entry = moved, entry, entry
