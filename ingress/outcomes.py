"""A run begun at a door, waited for a while, and its receipt: no thread is held meanwhile (D6)."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from governor import paths
from governor.errors import OutageError
from governor.fsm import RUN_OPEN
from governor.runs import Run
from ingress.state import State
from ledger.receipt import SignedReceipt
from ports import Ports

_LOOK_EVERY_S = 0.5
"""How often a waiter looks for itself, in case a notice was missed."""


async def settled(here: State, run_id: str, begin: Callable[[], Run]) -> Run:
    """The run that ``begin`` starts or finds, ended, or as it is when the waiting is over.

    Raises:
        GovernorError: whatever ``begin`` raises.
        OutageError: the run cannot be read.
    """
    async with here.waiters.expect(run_id) as ended:
        run = await here.webhook_work(begin)
        give_up_at = time.monotonic() + here.settings.webhook_wait_s
        while run.state in RUN_OPEN and time.monotonic() < give_up_at:
            await _wait(ended, min(_LOOK_EVERY_S, give_up_at - time.monotonic()))
            run = await here.waiters.share(run_id, lambda: _load(here.ports, run_id))
    return run


async def receipt_of(here: State, run: Run) -> SignedReceipt | None:
    """The receipt a run ended with; None while it goes on. Raises OutageError."""
    if run.state in RUN_OPEN or run.receipt_id is None:
        return None
    return await here.waiters.share(run.receipt_id, lambda: _receipt_of(here.ports, run))


async def _wait(ended: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended.wait(), max(0.0, seconds))
    ended.clear()


def _load(ports: Ports, run_id: str) -> Run:
    found = ports.documents.get(paths.run_path(run_id))
    if found is None:
        raise OutageError("run-vanished", "the run of this request cannot be read; repeat")
    return Run.stored(found.data)


def _receipt_of(ports: Ports, run: Run) -> SignedReceipt:
    found = ports.documents.get(paths.receipt_path(run.account_id, str(run.receipt_id)))
    if found is None:
        raise OutageError("receipt-unreadable", "its receipt cannot be read; repeat")
    return SignedReceipt.stored(found.data)
