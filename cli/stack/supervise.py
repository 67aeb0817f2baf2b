"""supervisord, for whose logs a full disk is no reason to die.

supervisord ends with an exception when a log cannot be written (Supervisor#629).
"""

import contextlib
import sys

from supervisor import loggers, supervisord


class RotatingLog(loggers.RotatingFileHandler):  # type: ignore[misc]
    """A log that goes on, whatever becomes of its disk."""

    def emit(self, record: loggers.LogRecord) -> None:
        """Write a line; one that cannot be written is lost, and nothing else is."""
        try:
            super().emit(record)
        except (OSError, ValueError):  # its rotation failed half-way
            with contextlib.suppress(OSError):
                self.closed = True
                self.reopen()

    def handleError(self) -> None:  # supervisor's name
        """Print nothing: standard error may be on the same disk."""


def main() -> None:
    """Run supervisord with these logs; its arguments are its own."""
    loggers.RotatingFileHandler = RotatingLog
    supervisord.main(sys.argv[1:])


if __name__ == "__main__":
    main()
