"""Death as a fence: a process that cannot tell what became of its claim must not live on.

While the store is away (or we have a bug), only this process knows. Its death frees what it had
claimed, for everybody sees that it is gone; ``docs/decisions/0003-death-as-a-fence.md``.
"""

import logging
import os
import signal
from collections.abc import Callable
from typing import TypeVar

_LOG = logging.getLogger("ggen.fence")
_T = TypeVar("_T")


def or_kill_self(tell: Callable[[], _T]) -> _T:
    """Store an outcome; a process that cannot dies, and the reaper goes by the documents."""
    try:
        return tell()
    except Exception as error:
        _LOG.critical("an outcome was not stored, the reaper deals with it", exc_info=error)
        os.kill(os.getpid(), signal.SIGKILL)
        raise  # never reached
