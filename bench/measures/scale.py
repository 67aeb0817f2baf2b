"""Scaling measured: from the start of a change until it is committed; a burst, worked off.

The tenant of the burst may do one at once, a tenth of a second each: ten a second. A hundred come
each second, 3,000 in all. One at once they would take 300 s.
"""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from adapters.wiring import open_ports
from bench.figures import Figures, p99, spread
from bench.measures.actions import subscribe
from bench.measures.dispatch import asked
from bench.stack import Driver, ggen
from governor.times import elapsed_ms, instant
from ledger.receipt import SignedReceipt
from ports import Ports
from ports.documents import Query, Where
from tasks.governors import policies
from tasks.runs.journal import load

ACCOUNT, TIMES = "bench-scale", 30
BURSTING, MESSAGES, PER_S, HELD_S = "bench-burst", 3_000, 100, 0.1
WITHIN_S = 420


def scaled(driver: Driver) -> Figures:
    """Thirty changes by command: each run's time until its limit and receipt are committed."""
    driver.subscribe(ACCOUNT, "professional")
    for number in range(TIMES):
        wanted = "20" if number % 2 else "50"
        ggen(driver.settings, "scale", ACCOUNT, "--concurrency", wanted)
    ports = open_ports(driver.settings)
    took_ms = []
    for document in ports.documents.scan(Query("runs", limit=1000)):
        if document.data["runbook"] == "scale_governor":
            run = load(ports, document.data["run_id"])[1]
            applied = instant(run.journal["scale_governor.apply"].result["applied_at"])
            took_ms.append(float(elapsed_ms(run.started_at, applied)))
    ports.documents.close()
    return spread(took_ms) | {"bar": "p99 < 100 ms", "met": p99(took_ms) < 100}


def drains(driver: Driver) -> Figures:
    """Ten times what one place sustains, for 30 s: until fewer than ten messages wait.

    Beside it, from signal to receipt: 20 quiet tenants, one after the other.
    """
    ports = open_ports(driver.settings)
    quiet = [f"bench-calm-{number}" for number in range(20)]
    for account_id in quiet:
        subscribe(driver, account_id)
    asked(driver, quiet, 20)  # warms up
    alone_ms = asked(driver, quiet, 200)
    prepare_burst(driver, ports)
    with ThreadPoolExecutor(1) as beside:
        came = beside.submit(burst, ports)
        beside_ms = list[float]()
        while not came.done():
            beside_ms += asked(driver, quiet, 20)
        most, came_s = came.result(), time.monotonic()
        while (waits := ports.signals.backlog(BURSTING)) >= 10 and _is_early(came_s):
            beside_ms += asked(driver, quiet, 20)
    took_s = time.monotonic() - came_s
    changed = changes(ports)
    ports.documents.close()
    return {
        "waited_at_most": most,
        "drained_after_s": round(took_s, 1),
        "left": waits,
        "changes": ", ".join(changed),
        "quiet_alone_p50_ms": spread(alone_ms)["p50_ms"],
        "quiet_alone_p99_ms": spread(alone_ms)["p99_ms"],
        "quiet_beside_n": len(beside_ms),
        "quiet_beside_p50_ms": spread(beside_ms)["p50_ms"],
        "quiet_beside_p99_ms": spread(beside_ms)["p99_ms"],
        "bar": "fewer than ten wait within 300 s; of the quiet, p99 ≤ 1.5 times that alone",
        "met": waits < 10 and took_s < 300 and p99(beside_ms) <= 1.5 * p99(alone_ms),
    }


def prepare_burst(driver: Driver, ports: Ports) -> None:
    """A tenant that may do one at once, and up to fifty where it is scaled."""
    sample = policies.in_force(ports, "demo-sku", "enterprise")
    terms = {"concurrent_actions": 1, "max_concurrent_actions": 50}
    slow = sample.actions["demo.sleep"].model_copy(update={"queue_timeout_ms": 60_000})
    policy = sample.model_copy(
        update={
            "sku_id": "burst",
            "quota": sample.quota.model_copy(update=terms),
            "actions": {**sample.actions, "demo.sleep": slow},
        }
    )
    policies.register(ports, policy.model_dump_json(exclude_none=True).encode())
    driver.subscribe(BURSTING, "enterprise", "burst")


def burst(ports: Ports) -> int:
    """The burst; how many messages wait at its end."""
    began_s = time.monotonic()
    for number in range(MESSAGES):
        told = {"signal_id": f"b-{number}", "type": "demo.sleep", "payload": {"seconds": HELD_S}}
        ports.signals.publish(BURSTING, json.dumps(told).encode())
        time.sleep(max(0.0, began_s + number / PER_S - time.monotonic()))
    waits: int = ports.signals.backlog(BURSTING)
    return waits


def changes(ports: Ports) -> list[str]:
    """How the limit of the burst's tenant went, as ``2-4``."""
    return [
        f"{fields['concurrency']['previous']}-{fields['concurrency']['new']}"
        for operation in ("governor_scaled", "governor_scale_reverted")
        for fields in _receipts(ports, operation)
    ]


def _is_early(came_s: float) -> bool:
    return time.monotonic() < came_s + WITHIN_S


def _receipts(ports: Ports, operation: str) -> list[dict[str, Any]]:
    found = ports.documents.scan(
        Query(
            f"tenants/{BURSTING}/receipts",
            where=[Where("operation", "==", operation)],
            order_by="timestamp",
            limit=50,
        )
    )
    return [SignedReceipt.stored(document.data).fields() for document in found]


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {"scaled": scaled}
ON_REQUEST: dict[str, Callable[[Driver], Figures]] = {"drains": drains}
