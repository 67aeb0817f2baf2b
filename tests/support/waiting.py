import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T], within_s: float = 30.0) -> T:
    """What ``look`` returns once it is truthy."""
    give_up_at = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < give_up_at, f"{look} did not come true within {within_s} s"
        time.sleep(0.02)
    return found
