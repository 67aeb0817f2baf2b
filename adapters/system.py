"""The machine's own clock and processes."""

import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime

import psutil

from governor.records import ProcessClaim, timestamp


class SystemClock:
    """See ``ports.system.Clock`` for what it promises."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class SystemProcesses:
    """See ``ports.system.Processes`` for what it promises."""

    def __init__(self) -> None:
        self._own: tuple[int, float] | None = None

    def claim(self, at: datetime) -> ProcessClaim:
        pid = os.getpid()
        if self._own is None or self._own[0] != pid:
            self._own = (pid, psutil.Process(pid).create_time())
        return ProcessClaim(
            host=socket.gethostname(),
            pid=pid,
            process_started=self._own[1],
            claimed_at=timestamp(at),
        )

    def kill(self, claim: ProcessClaim) -> None:
        if claim.host == socket.gethostname() and claim.pid != os.getpid():
            with suppress(psutil.Error):
                process = psutil.Process(claim.pid)
                if _is_that(process, claim):
                    process.kill()

    def is_gone(self, claim: ProcessClaim) -> bool:
        if claim.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(claim.pid)
            return not _is_that(process, claim) or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def _is_that(process: psutil.Process, claim: ProcessClaim) -> bool:
    """A pid is used again; the start time tells the two apart (1 s: the kernel's rounding)."""
    return bool(abs(process.create_time() - claim.process_started) <= 1.0)
