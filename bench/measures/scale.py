"""Scaling measured: from the start of a change's run until its limit is committed."""

from collections.abc import Callable

from adapters.wiring import open_ports
from bench.figures import Figures, p99, spread
from bench.stack import Driver, ggen
from governor.times import elapsed_ms, instant
from ports.documents import Query
from tasks.runs.journal import load

ACCOUNT, TIMES = "bench-scale", 30


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


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {"scaled": scaled}
