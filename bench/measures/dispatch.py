"""Dispatch measured: one tenant floods beside another, and eight slow signals at once."""

import time
from collections.abc import Callable
from typing import Any

from bench.figures import Figures, p99, spread
from bench.load import Load
from bench.measures.actions import subscribe
from bench.stack import Driver
from governor.times import elapsed_ms, instant

LOUD, QUIET = "bench-loud", "bench-quiet"
FLOOD_S, CONNECTIONS, ASKED = 20.0, 64, 100
ROUNDS, AT_ONCE = 25, 8


def fair(driver: Driver) -> Figures:
    """A quiet tenant's signal to its receipt: alone, and beside a flood from 64 connections."""
    for account_id in (LOUD, QUIET):
        subscribe(driver, account_id)
    _asked(driver, 20)  # warms up
    alone = _asked(driver, ASKED)
    flood = Load(driver.settings, LOUD, per_s=0, clients=CONNECTIONS, kinds=[("bench.noop", {})])
    with flood:
        time.sleep(2)
        until_s, beside = time.monotonic() + FLOOD_S, list[float]()
        while time.monotonic() < until_s:
            beside += _asked(driver, 10)
    accepted = [a for a in flood.answers if a.status == 202]
    return {
        "alone_p50_ms": spread(alone)["p50_ms"],
        "alone_p99_ms": spread(alone)["p99_ms"],
        "beside_n": len(beside),
        "beside_p50_ms": spread(beside)["p50_ms"],
        "beside_p99_ms": spread(beside)["p99_ms"],
        "loud_per_s": round(len(accepted) / (FLOOD_S + 2)),
        "bar": "p99 beside ≤ 1.5 times p99 alone",
        "met": p99(beside) <= 1.5 * p99(alone),
    }


def slow_at_once(driver: Driver) -> Figures:
    """Eight signals at once of a handler that takes 400 ms: how long each waits for a process."""
    subscribe(driver, QUIET)
    waited_ms: list[float] = []
    for _ in range(ROUNDS):
        places = [driver.signal(QUIET, "bench.wait", {"seconds": 0.4}) for _ in range(AT_ONCE)]
        waited_ms += [float(driver.wait_action(place)["queue_ms"]) for place in places]
    return spread(waited_ms) | {"bar": "p99 ≤ 50 ms", "met": p99(waited_ms) <= 50}


def _asked(driver: Driver, count: int) -> list[float]:
    """From the acceptance of a signal to the receipt of its action, one after the other."""
    took_ms = []
    for _ in range(count):
        ended: dict[str, Any] = driver.wait_action(driver.signal(QUIET, "bench.noop", {}))
        took_ms.append(float(elapsed_ms(ended["accepted_at"], instant(ended["ended_at"]))))
    return took_ms


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {
    "fair": fair,
    "slow_at_once": slow_at_once,
}
