"""An exact deadline for a call, in this very process (D9).

An interval timer of the kernel, armed last and disarmed first, raises ``ActionDeadline`` in the
main thread between two bytecodes or out of a blocking system call. Celery's own limits are only a
backstop: they are armed in another process, and were measured 5.7 s late.

The kernel changes between busy processes only every few milliseconds (4 on most), so of eight busy
loops on two cores the last would hear of its deadline 12 ms late. In the last 250 ms before its
deadline, the timer therefore fires every 0.5 ms while a call burns processor time. Each time, the
call yields its core to a process that waits for one. Not sooner: each yield costs the call a turn
of the kernel's. A call that merely waits is left alone.

A signal that comes just before a call enters the kernel to wait there is not looked at until the
wait ends. So the timer always repeats by itself, until Python has dealt with it.
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from governor.errors import ActionDeadline

_TURN_S = 0.0005
_NEAR_S = 0.25
_LONGEST_TURN_S = 60.0


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
    value: object = None


class _Timer:
    """The interval timer of one call."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline_s = 0.0
        self._turn_s = _TURN_S
        self._cpu_s = 0.0
        self._is_armed = False
        self.fired_late_s: float | None = None

    def arm(self) -> None:
        """Start to count. Nothing but the call itself may come after this."""
        self._is_armed = True
        self._cpu_s = time.process_time()
        first_s = min(self._seconds, max(_TURN_S, self._seconds - _NEAR_S))
        signal.setitimer(signal.ITIMER_REAL, first_s, _TURN_S)
        # Read last: should this process be put aside here, its call still gets all of its time.
        self._deadline_s = time.monotonic() + self._seconds

    def disarm(self) -> None:
        """From here on the call has won, and the timer does nothing."""
        self._is_armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def fire(self, _signum: int, _frame: object) -> None:
        """Raise if the time is up; else give way, if the call is busy, and come again."""
        if not self._is_armed:
            return
        left_s = self._deadline_s - time.monotonic()
        if self._deadline_s and left_s <= 0:
            self.disarm()
            self.fired_late_s = -left_s
            raise ActionDeadline
        used_s = time.process_time() - self._cpu_s
        if used_s * 4 < self._turn_s:
            self._turn_s = min(self._turn_s * 4, _LONGEST_TURN_S)
        else:
            self._turn_s = _TURN_S
            os.sched_yield()
        self._cpu_s = time.process_time()
        left_s = self._deadline_s - time.monotonic() if self._deadline_s else _TURN_S
        signal.setitimer(signal.ITIMER_REAL, max(1e-6, min(self._turn_s, left_s)), _TURN_S)


def run_within(seconds: float, call: Callable[[], object]) -> Ended:
    """Run ``call``, interrupting it ``seconds`` from now; never earlier.

    A call that swallows the interruption and returns late has timed out all the same. One that
    never comes back is stopped by the hard limit on its message.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("deadlines work in the main thread only: use the prefork pool")
    timer = _Timer(seconds)
    previous = signal.signal(signal.SIGALRM, timer.fire)
    error: BaseException | None = None
    value: object = None
    started_s = time.monotonic()
    try:
        try:
            timer.arm()
            value = call()
        finally:
            timer.disarm()
    except BaseException as raised:
        error = raised
    finally:
        signal.signal(signal.SIGALRM, previous)
    elapsed_s = time.monotonic() - started_s
    if timer.fired_late_s is not None:
        return Ended(Ending.TIMED_OUT, elapsed_s, fired_late_s=timer.fired_late_s)
    ending = Ending.RAISED if error else Ending.RETURNED
    return Ended(ending, elapsed_s, error=error, value=value)
