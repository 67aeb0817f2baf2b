"""A step that works through a population of any size, part by part.

Each part is one commit with the cursor behind it, so that a part is done once, whoever dies. After
a few seconds the process hands the rest to another message: others do not wait behind it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import tenacity

from governor import paths
from governor.errors import OutageError
from governor.fsm import RUN_ACTING
from governor.runs import Run
from ports import Ports
from ports.documents import Create
from tasks.runs.definition import Chunk, ElsewhereError, Runbooks
from tasks.runs.failure import reason_to_stop, with_retries
from tasks.runs.fenced import Fenced
from tasks.runs.journal import load, send

HAND_OVER_S = 3.0
"""How long one process works through a population before it hands over."""

_TRIES = 5
"""How often a part is made anew whose members others change meanwhile."""

ChunkOf = Callable[[Ports, Run, str], Chunk]


class _Lost(Exception):
    """Another process has the step."""


@dataclass(slots=True)
class Through:
    """One process's way through the population of a step, or through that of its undo."""

    ports: Ports
    runbooks: Runbooks
    at: Fenced
    chunk_of: ChunkOf
    is_undo: bool = False

    def go_on(self) -> bool:
        """Go on through the population; False when the rest was handed over to another message.

        Raises:
            whatever ``chunk_of`` raised last; ElsewhereError: another process has the step.
            OutageError: ``population-busy``: others keep changing its members.
            GovernorError: why the run must not go on, if an operator wishes so.
        """
        clock = self.ports.clock
        began_s = clock.monotonic_s()
        while not self._is_through:
            hands_over = clock.monotonic_s() - began_s > HAND_OVER_S
            self._part(hands_over)
            if hands_over and not self._is_through:
                send(self.runbooks, self.at.run)
                return False
        return True

    @property
    def _is_through(self) -> bool:
        entry = self.at.entry
        return entry.is_undone_through if self.is_undo else entry.is_through

    def _part(self, hands_over: bool) -> None:
        """Commit the next part; it is made anew where a member was changed under it."""
        waiting = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ElsewhereError),
            stop=tenacity.stop_after_attempt(_TRIES),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=0.2),
            before_sleep=lambda _state: self._refresh(),
        )
        try:
            waiting(self._commit, hands_over)
        except tenacity.RetryError:
            detail = "others keep changing what the step works through"
            raise OutageError("population-busy", detail, 1) from None
        except _Lost as lost:
            raise ElsewhereError("fenced", str(lost)) from None

    def _commit(self, hands_over: bool) -> None:
        at, entry = self.at, self.at.entry
        cursor = entry.undo_cursor if self.is_undo else entry.cursor
        chunk = with_retries(self.chunk_of, self.ports, at.run, cursor or "")
        is_last = chunk.cursor is None
        moved = (
            entry.evolve(undo_cursor=chunk.cursor, is_undone_through=is_last)
            if self.is_undo
            else entry.evolve(
                cursor=chunk.cursor, is_through=is_last, members=entry.members + chunk.members
            )
        )
        if hands_over and not is_last:
            moved = moved.evolve(claim=None, undo_claim=None)
        started = [Create(paths.run_path(c.run_id), c.document()) for c in chunk.children]
        at.save(self.ports, at.run, moved, [*chunk.writes, *started])
        for child in chunk.children:
            send(self.runbooks, child)

    def _refresh(self) -> None:
        at = self.at
        found, current = load(self.ports, at.run.run_id)
        if current.journal.get(at.step_name) != at.stored or current.state is not at.run.state:
            raise _Lost(f"step {at.step_name} was taken over")
        runbook = self.runbooks[current.runbook]
        is_wished = current.cancellation is not None and current.state in RUN_ACTING
        if is_wished and (stop := reason_to_stop(self.ports, runbook, current)):
            raise stop
        at.run, at.revision = current, found.revision
