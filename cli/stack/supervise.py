"""supervisord, for whose logs a full disk is no reason to die, and which rotate while running.

supervisord ends with an exception when a log cannot be written (Supervisor#629), and rotates a file
only where one program writes it. Here all programs share one file, which is turned over in place.
"""

import contextlib
import os
import shutil
import sys

from supervisor import loggers, supervisord

MAX_LOG_BYTES = 10_000_000
"""How long the log may grow; as much again is kept beside it."""


class LogFile(loggers.FileHandler):  # type: ignore[misc]
    """A log that goes on, whatever becomes of its disk."""

    def emit(self, record: loggers.LogRecord) -> None:
        """Write a line; one that cannot be written is lost, and nothing else is."""
        with contextlib.suppress(OSError, ValueError):
            super().emit(record)
            if os.fstat(self.stream.fileno()).st_size > MAX_LOG_BYTES:
                self._turn_over(f"{self.baseFilename}.1")

    def _turn_over(self, kept: str) -> None:
        """Keep a copy, if there is room, and begin again in place: others append to this file."""
        try:
            shutil.copyfile(self.baseFilename, kept)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(kept)
        os.truncate(self.baseFilename, 0)

    def handleError(self) -> None:  # supervisor's name
        """Print nothing: standard error may be on the same disk."""


def main() -> None:
    """Run supervisord with these logs; its arguments are its own."""
    loggers.FileHandler = LogFile
    supervisord.main(sys.argv[1:])


if __name__ == "__main__":
    main()
