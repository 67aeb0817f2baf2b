"""Receipts as counters: a histogram of durations by operation, events and misses by objective.

Counters are kept by name in one flat mapping, which any store can add to:
``duration|OPERATION|BOUND`` (receipts that took at most so many milliseconds; ``inf``: all of
them), ``duration|OPERATION|sum``, ``events|OBJECTIVE``, ``bad|OBJECTIVE``.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from governor.slo.contract import BY_OPERATION

BOUNDS_MS = (5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 40_000)
"""Upper bounds of the histogram's buckets; OpenTelemetry's advice for durations, and 40 s (D14)."""


def counts_of(receipts: Iterable[Mapping[str, Any]]) -> Counter[str]:
    """What these receipts, as their contracts' fields, add to the counters."""
    counts = Counter[str]()
    for receipt in receipts:
        operation, duration_ms = receipt["operation"], receipt["duration_ms"]
        counts[f"duration|{operation}|sum"] += duration_ms
        counts[f"duration|{operation}|inf"] += 1
        for bound in BOUNDS_MS:
            if duration_ms <= bound:
                counts[f"duration|{operation}|{bound}"] += 1
        for objective in BY_OPERATION.get(operation, ()):
            if judged := objective.judge(receipt):
                counts[f"events|{objective.name}"] += 1
                counts[f"bad|{objective.name}"] += not judged.is_good
    return counts
