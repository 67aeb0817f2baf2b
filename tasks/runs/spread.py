"""A step that works through a population of any size, part by part.

Each part is one commit with the cursor behind it, so that a part is done once, whoever dies. After
a few seconds the process hands the rest to another message: others do not wait behind it.
"""

from collections.abc import Callable
from typing import Literal

from governor import paths
from governor.runs import Run
from ports import Ports
from ports.documents import Create
from tasks.runs.definition import Chunk
from tasks.runs.failure import with_retries
from tasks.runs.fenced import Fenced

HAND_OVER_S = 3.0
"""How long one process works through a population before it hands over."""


def through(
    ports: Ports,
    at: Fenced,
    chunk_of: Callable[[Ports, Run, str], Chunk],
    cursor: Literal["cursor", "undo_cursor"],
) -> Chunk | None:
    """Go on through the population; its last part, not stored yet, or None when it is handed over.

    Raises:
        whatever ``chunk_of`` raised last; ElsewhereError as ``Fenced.save``.
    """
    began_s = ports.clock.monotonic_s()
    while True:
        chunk = with_retries(chunk_of, ports, at.run, getattr(at.entry, cursor) or "")
        is_undo = cursor == "undo_cursor"
        members = at.entry.members + (0 if is_undo else chunk.members)
        moved = at.entry.evolve(members=members, **{cursor: chunk.cursor})
        if chunk.cursor is None:
            at.entry = moved
            return chunk
        hands_over = ports.clock.monotonic_s() - began_s > HAND_OVER_S
        if hands_over:
            moved = moved.evolve(claim=None, undo_claim=None)
        started = [Create(paths.run_path(c.run_id), c.document()) for c in chunk.children]
        at.save(ports, at.run, moved, [*chunk.writes, *started])
        if hands_over:
            return None
