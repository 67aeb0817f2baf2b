"""One log line format for every process: time, level, component, message."""

import logging
import os
import sys
import time

MOST_LINES = 30
"""Lines of one cause that a process writes in a minute."""


class Flood(logging.Filter):
    """Lets the first lines of each cause through, and then says each minute how many were not."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, str], list[int]] = {}
        self._minute = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is written; the first of a minute says what was left out before it."""
        minute = int(time.monotonic() // 60)
        if minute != self._minute:
            left_out = sum(
                count - MOST_LINES for (count,) in self._seen.values() if count > MOST_LINES
            )
            self._seen, self._minute = {}, minute
            if left_out:
                record.msg = f"({left_out} lines like others were left out) {record.msg}"
        cause = record.name, str(record.msg)[:200]
        if len(self._seen) > 1000:
            cause = record.name, ""
        count = self._seen.setdefault(cause, [0])
        count[0] += 1
        return count[0] <= MOST_LINES or record.levelno >= logging.CRITICAL


def configure() -> None:
    """Log to standard error, which supervisord writes to a file for each program."""
    component = os.path.basename(sys.argv[0])
    name = os.environ.get("SUPERVISOR_PROCESS_NAME", component)
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-8s {name:<9} %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    handler.addFilter(Flood())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # One line per task or request would bury what matters; Flower and the ledger have them.
    for noisy in (
        "celery.worker.strategy",
        "celery.beat",
        "httpx",
        "uvicorn.access",
        "celery.app.trace",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
