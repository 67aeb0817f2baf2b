"""Wait until something is true, with a bound."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], within_s: float = 30.0, every_s: float = 0.02) -> T:
    """What ``look`` returns once it is truthy.

    Raises:
        TimeoutError: it was not, within ``within_s`` seconds.
    """
    give_up_at = time.monotonic() + within_s
    while not (found := look()):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{look} did not come true within {within_s:g} s")
        time.sleep(every_s)
    return found
