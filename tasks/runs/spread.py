"""A step that works through a population of any size, part by part.

Each part is one commit with the cursor behind it, so that a part is done once, whoever dies. After
a few seconds the process hands the rest to another message: others do not wait behind it.
"""

from collections.abc import Callable
from typing import Any

import tenacity

from governor import paths
from governor.errors import OutageError
from governor.fsm import RUN_ACTING
from governor.runs import Run
from ports import Ports
from ports.documents import Create
from tasks.runs.definition import Chunk, ElsewhereError, Runbook, Runbooks
from tasks.runs.failure import reason_to_stop, with_retries
from tasks.runs.fenced import Fenced
from tasks.runs.journal import load, send

HAND_OVER_S = 3.0
"""How long one process works through a population before it hands over."""

_TRIES = 5
"""How often a part is made anew whose members others change meanwhile."""

ChunkOf = Callable[[Ports, Run, str], Chunk]


def through(
    ports: Ports, runbooks: Runbooks, at: Fenced, chunk_of: ChunkOf, *, is_undo: bool = False
) -> bool:
    """Go on through the population; False when the rest was handed over to another message.

    Raises:
        whatever ``chunk_of`` raised last; ElsewhereError: another process has the step.
        OutageError: ``population-busy``: others keep changing its members.
        GovernorError: why the run must not go on, if an operator wishes so.
    """
    began_s = ports.clock.monotonic_s()
    name, through_name = (
        ("undo_cursor", "is_undone_through") if is_undo else ("cursor", "is_through")
    )
    while not getattr(at.entry, through_name):
        hands_over = ports.clock.monotonic_s() - began_s > HAND_OVER_S
        _part(ports, runbooks, at, chunk_of, (name, through_name), hands_over=hands_over)
        if hands_over and not getattr(at.entry, through_name):
            send(runbooks, at.run)
            return False
    return True


def _part(
    ports: Ports,
    runbooks: Runbooks,
    at: Fenced,
    chunk_of: ChunkOf,
    names: tuple[str, str],
    *,
    hands_over: bool,
) -> None:
    """Commit the next part; it is made anew where a member was changed under it."""
    waiting = tenacity.wait_random_exponential(multiplier=0.02, max=0.2)
    retry = tenacity.retry_if_exception_type(ElsewhereError)
    stop = tenacity.stop_after_attempt(_TRIES)
    try:
        for attempt in tenacity.Retrying(retry=retry, stop=stop, wait=waiting):
            with attempt:
                if attempt.retry_state.attempt_number > 1:
                    _refresh(ports, runbooks[at.run.runbook], at)
                _commit(ports, runbooks, at, chunk_of, names, hands_over=hands_over)
    except tenacity.RetryError:
        raise OutageError(
            "population-busy", "others keep changing what the step works through", 1
        ) from None
    except _Lost as lost:
        raise ElsewhereError("fenced", str(lost)) from None


class _Lost(Exception):
    """Another process has the step."""


def _refresh(ports: Ports, runbook: Runbook, at: Fenced) -> None:
    found, current = load(ports, at.run.run_id)
    if current.journal.get(at.step_name) != at.stored or current.state is not at.run.state:
        raise _Lost(f"step {at.step_name} was taken over")
    is_wished = current.cancellation is not None and current.state in RUN_ACTING
    if is_wished and (stop := reason_to_stop(ports, runbook, current)):
        raise stop
    at.run, at.revision = current, found.revision


def _commit(
    ports: Ports,
    runbooks: Runbooks,
    at: Fenced,
    chunk_of: ChunkOf,
    names: tuple[str, str],
    *,
    hands_over: bool,
) -> None:
    cursor, is_through = names
    chunk = with_retries(chunk_of, ports, at.run, getattr(at.entry, cursor) or "")
    changes: dict[str, Any] = {cursor: chunk.cursor, is_through: chunk.cursor is None}
    if cursor == "cursor":
        changes["members"] = at.entry.members + chunk.members
    if hands_over and chunk.cursor is not None:
        changes |= {"claim": None, "undo_claim": None}
    started = [Create(paths.run_path(c.run_id), c.document()) for c in chunk.children]
    at.save(ports, at.run, at.entry.evolve(**changes), [*chunk.writes, *started])
    for child in chunk.children:
        send(runbooks, child)
