"""One log line format for every process: time, level, component, message."""

import logging
import os
import sys
import time


def configure() -> None:
    """Log to standard error, which the supervisor gathers into one file."""
    component = os.path.basename(sys.argv[0])
    name = os.environ.get("SUPERVISOR_PROCESS_NAME", component)
    formatter = logging.Formatter(
        f"%(asctime)s.%(msecs)03dZ %(levelname)-8s {name:<9} %(message)s", "%Y-%m-%dT%H:%M:%S"
    )
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
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
