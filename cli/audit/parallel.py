"""Examining receipts on every core: checking signatures is what verification spends its time on."""

import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from governor.errors import OutageError
from ledger.audit import Entry, examine
from ledger.keys import KeyRing
from ledger.verify import Finding
from tasks.ledgers.audit import Examine

_AHEAD = 4
"""Chunks that wait for each process; bounded, so that memory does not grow with the ledger."""

_WORTHWHILE = 2
"""Chunks below which processes of their own take longer to start than to help."""


@contextmanager
def examining() -> Iterator[Examine]:
    """An ``Examine`` that spreads chunks over this machine's cores."""
    # Spawned, not forked: an open SQLite connection must not come along.
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawned) as pool:

        def spread(
            chunks: Iterable[Sequence[Entry]], account_id: str, ring: KeyRing
        ) -> Iterator[list[Finding]]:
            waiting: deque[Future[list[Finding]]] = deque()
            for number, chunk in enumerate(chunks):
                if number < _WORTHWHILE:
                    yield examine(chunk, account_id, ring)
                    continue
                waiting.append(pool.submit(examine, chunk, account_id, ring))
                if len(waiting) > _AHEAD * (os.cpu_count() or 1):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield spread
        except BrokenProcessPool as error:
            raise OutageError(
                "verification-interrupted",
                "a process that examined receipts died (out of memory?); nothing was changed, and "
                "there is no verdict on the ledger. Run it again",
            ) from error
