"""What every measurement says of its times."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

Figures = dict[str, Any]


def spread(values_ms: Sequence[float]) -> Figures:
    """How many, median, p99 and the worst."""
    return {
        "n": len(values_ms),
        "p50_ms": round(statistics.median(values_ms), 2),
        "p99_ms": round(p99(values_ms), 2),
        "max_ms": round(max(values_ms), 2),
    }


def p99(values: Sequence[float]) -> float:
    """The value that at most 1 % exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def timed(call: Callable[[], object]) -> float:
    """How long ``call`` takes, in milliseconds."""
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000
