"""An exact deadline for a call, in this very process (D9).

An interval timer of the kernel, armed last and disarmed first, raises ``ActionDeadline`` in the
main thread between two bytecodes or out of a blocking system call. Celery's own limits are only a
backstop: they are armed in another process, and were measured 5.7 s late.
"""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from governor.errors import ActionDeadline


class Ending(StrEnum):
    """How a call ended; exactly one of these."""

    RETURNED = "returned"
    RAISED = "raised"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class Ended:
    """One call's end. ``fired_late_s`` is how long after the deadline the timer fired."""

    ending: Ending
    elapsed_s: float
    error: BaseException | None = None
    fired_late_s: float | None = None


def run_within(seconds: float, call: Callable[[], object]) -> Ended:
    """Run ``call``, interrupting it ``seconds`` from now; never earlier.

    A call that swallows the interruption and returns late has timed out all the same. One that
    never comes back is stopped by the hard limit on its message.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("deadlines work in the main thread only: use the prefork pool")
    armed, fired_at = True, None

    def fire(_signum: int, _frame: object) -> None:
        nonlocal armed, fired_at
        if armed:
            armed, fired_at = False, time.monotonic()
            raise ActionDeadline

    previous = signal.signal(signal.SIGALRM, fire)
    error: BaseException | None = None
    started = time.monotonic()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            call()
        finally:
            armed = False  # from here on the call has won and the timer does nothing
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException as raised:
        error = raised
    finally:
        signal.signal(signal.SIGALRM, previous)
    elapsed_s = time.monotonic() - started
    if fired_at is not None:
        return Ended(Ending.TIMED_OUT, elapsed_s, fired_late_s=fired_at - started - seconds)
    return Ended(Ending.RAISED if error else Ending.RETURNED, elapsed_s, error=error)
