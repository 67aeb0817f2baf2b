"""Dispatch measured: a tenant floods beside others, slow signals at once, minutes at full load."""

import time
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from typing import Any

from adapters.local.waiting import until
from adapters.wiring import open_ports
from bench.figures import Figures, p99, spread
from bench.load import Load
from bench.measures.actions import subscribe
from bench.stack import Driver, family
from governor.actions import UNDER_WAY
from governor.times import elapsed_ms, instant
from ports.documents import Where

LOUD, QUIET = "bench-loud", "bench-quiet"
FLOOD_S, CONNECTIONS, ASKED = 20.0, 64, 100
ROUNDS, AT_ONCE = 25, 8
FULL_S = 600.0
NOOP: list[tuple[str, dict[str, Any]]] = [("bench.noop", {})]


def fair(driver: Driver) -> Figures:
    """A quiet tenant's signal to its receipt: alone, and beside a flood from 64 connections."""
    return _beside(driver, [QUIET])


def fair_to_many(driver: Driver) -> Figures:
    """The same of 20 quiet tenants, one after the other."""
    return _beside(driver, [f"{QUIET}-{number}" for number in range(20)])


def _beside(driver: Driver, quiet: Sequence[str]) -> Figures:
    for account_id in (LOUD, *quiet):
        subscribe(driver, account_id)
    asked(driver, quiet, 20)  # warms up
    alone = asked(driver, quiet, ASKED)
    flood = Load(driver.settings, LOUD, per_s=0, clients=CONNECTIONS, kinds=NOOP)
    with flood:
        time.sleep(2)  # warms up
        began_s, had, beside = time.monotonic(), _accepted(flood), list[float]()
        time.sleep(FLOOD_S / 2)
        free_per_s = (_accepted(flood) - had) / (time.monotonic() - began_s)
        began_s, had = time.monotonic(), _accepted(flood)
        while time.monotonic() - began_s < FLOOD_S:
            beside += asked(driver, quiet, 10)
        taken_per_s = (_accepted(flood) - had) / (time.monotonic() - began_s)
    return {
        "alone_p50_ms": spread(alone)["p50_ms"],
        "alone_p99_ms": spread(alone)["p99_ms"],
        "beside_n": len(beside),
        "beside_p50_ms": spread(beside)["p50_ms"],
        "beside_p99_ms": spread(beside)["p99_ms"],
        "loud_alone_per_s": round(free_per_s),
        "loud_beside_per_s": round(taken_per_s),
        "bar": "p99 beside ≤ 1.5 times p99 alone, and the loud one has 80 % of its own",
        "met": p99(beside) <= 1.5 * p99(alone) and taken_per_s >= 0.8 * free_per_s,
    }


def slow_at_once(driver: Driver) -> Figures:
    """Eight signals at once of a handler that takes 400 ms: how long each waits for a process."""
    subscribe(driver, QUIET)
    waited_ms: list[float] = []
    for _ in range(ROUNDS):
        places = [driver.signal(QUIET, "bench.wait", {"seconds": 0.4}) for _ in range(AT_ONCE)]
        waited_ms += [float(driver.wait_action(place)["queue_ms"]) for place in places]
    return spread(waited_ms) | {"bar": "p99 ≤ 50 ms", "met": p99(waited_ms) <= 50}


def full_load(driver: Driver) -> Figures:
    """Ten minutes at full load: memory, and whether each accepted signal ended once."""
    subscribe(driver, LOUD)
    ports = open_ports(driver.settings)
    memory_mib: list[float] = []
    with Load(driver.settings, LOUD, per_s=0, clients=16, kinds=NOOP) as load:
        for _ in range(10):
            time.sleep(FULL_S / 10)
            memory_mib.append(_programs_mib(driver))
    ids = load.settled()
    actions = f"tenants/{LOUD}/actions"
    under_way = [Where("state", "in", UNDER_WAY)]
    until(lambda: ports.documents.count(actions, under_way) == 0, 120, 1.0)

    def count(collection: str, field: str, value: str) -> int:
        where = [Where(field, "==", value)]
        return ports.documents.count(f"tenants/{LOUD}/{collection}", where)

    complete, expired = count("actions", "state", "complete"), count("actions", "state", "failed")
    told = count("receipts", "operation", "action_complete")
    told_expired = count("receipts", "operation", "action_timeout")
    orphans = ports.slots.orphans()
    ports.documents.close()
    agree = (complete, expired) == (told, told_expired) and len(ids) == complete + expired
    grown = memory_mib[-1] - memory_mib[4]
    return {
        "accepted": len(ids),
        "per_s": round(len(ids) / FULL_S),
        "complete": complete,
        "expired": expired,
        "receipts": told + told_expired,
        "orphans": orphans,
        "memory_mib": [round(each) for each in memory_mib],
        "bar": "the books agree, no orphan, no growth over 5 % in the second half",
        "met": agree and not orphans and grown < 0.05 * memory_mib[4],
    }


def _programs_mib(driver: Driver) -> float:
    """Memory of the stack's programs; not Valkey's, which remembers each signal for an hour."""
    programs = [p for p in family(driver.settings) if "valkey" not in p.name()]
    return sum(p.memory_full_info().pss for p in programs) / 2**20


def _accepted(load: Load) -> int:
    return load.statuses()[202]


def asked(driver: Driver, accounts: Sequence[str], count: int) -> list[float]:
    """From the acceptance of a signal to the receipt of its action, one after the other (ms)."""
    took_ms = []
    for account_id in islice(cycle(accounts), count):
        ended: dict[str, Any] = driver.wait_action(driver.signal(account_id, "bench.noop", {}))
        took_ms.append(float(elapsed_ms(ended["accepted_at"], instant(ended["ended_at"]))))
    return took_ms


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {
    "fair": fair,
    "fair_to_many": fair_to_many,
    "slow_at_once": slow_at_once,
}
ON_REQUEST: dict[str, Callable[[Driver], Figures]] = {"full_load": full_load}
