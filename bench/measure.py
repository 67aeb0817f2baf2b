"""The measurements: each a function from a running stack to figures, with the bar beside them."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import psutil

from adapters.wiring import open_ports
from bench.chaos import kills
from bench.figures import Figures, p99, spread
from bench.measures import (
    actions,
    backup,
    cancel,
    dispatch,
    doors,
    ledger,
    policy,
    rebuild,
    runs,
    scale,
)
from bench.stack import Driver, family, stack
from governor.errors import InputError
from governor.times import instant


def webhook(driver: Driver) -> Figures:
    """Webhook to receipt, one at a time, each for a new account."""
    took_ms = []
    for n in range(60):
        started = time.perf_counter()
        driver.subscribe(f"bench-webhook-{n}")
        took_ms.append((time.perf_counter() - started) * 1000)
    return spread(took_ms) | {"bar": "p99 < 500 ms", "met": p99(took_ms) < 500}


def action(driver: Driver) -> Figures:
    """Signal accepted (202 received) to the action's receipt, as the system's own clock has it."""
    driver.subscribe("bench-action")
    took_ms = []
    for _ in range(200):
        ended = driver.wait_action(driver.signal("bench-action", "demo.succeed", {}))
        passed = instant(ended["ended_at"]) - instant(ended["accepted_at"])
        took_ms.append(passed.total_seconds() * 1000)
    median = statistics.median(took_ms)
    return spread(took_ms) | {"bar": "p50 < 25 ms", "met": median < 25}


def first_signal(driver: Driver) -> Figures:
    """From a webhook's 200 to the end of the new governor's first action, seen from outside."""
    took_ms = []
    for n in range(20):
        driver.subscribe(f"bench-first-{n}")
        started = time.perf_counter()
        driver.wait_action(driver.signal(f"bench-first-{n}", "demo.succeed", {}))
        took_ms.append((time.perf_counter() - started) * 1000)
    return spread(took_ms) | {"bar": "max < 1000 ms", "met": max(took_ms) < 1000}


def idle(driver: Driver) -> Figures:
    """Memory (PSS) and CPU of the whole stack while it gets no requests."""
    processes = family(driver.settings)
    time.sleep(10)  # let what was started settle
    seconds = 30.0
    before = _cpu_s(processes)
    time.sleep(seconds)
    used = (_cpu_s(processes) - before) / seconds * 100
    pss_mib = sum(p.memory_full_info().pss for p in processes) / 2**20
    return {
        "pss_mib": round(pss_mib, 1),
        "cpu_percent_of_a_core": round(used, 2),
        "processes": len(processes),
        "bar": "< 620 MiB, < 5 %",
        "met": pss_mib < 620 and used < 5,
    }


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {
    "webhook": webhook,
    "action": action,
    "first_signal": first_signal,
    "deadlines": actions.deadlines,
    "overhead": actions.overhead,
    "idle": idle,
    **doors.MEASUREMENTS,
    **runs.MEASUREMENTS,
    **ledger.MEASUREMENTS,
    **kills.MEASUREMENTS,
    **cancel.MEASUREMENTS,
    **policy.MEASUREMENTS,
    **dispatch.MEASUREMENTS,
    **scale.MEASUREMENTS,
    **backup.MEASUREMENTS,
}
"""Measured unless others are named."""


def run(only: Sequence[str]) -> Figures:
    """Every measurement, or those named, on one stack.

    Raises:
        InputError: a name that is none of them.
    """
    known = MEASUREMENTS | {
        k: m
        for each in (runs, ledger, policy, dispatch, scale, rebuild)
        for k, m in each.ON_REQUEST.items()
    }
    if unknown := set(only) - set(known):
        raise InputError("unknown-measurement", f"{', '.join(unknown)}: none of {', '.join(known)}")
    with stack() as driver:
        # Else the daily pass over all ledgers would be measured as well.
        open_ports(driver.settings).watches.claim_tick("audit", 3600)
        results = {name: known[name](driver) for name in only or MEASUREMENTS}
    return {"machine": machine(), "results": results}


def machine() -> Figures:
    """What this machine is, so that figures can be compared."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def table(result: Figures) -> str:
    """The figures for people."""
    lines = [" ".join(f"{k}={v}" for k, v in result["machine"].items())]
    for name, figures in result["results"].items():
        numbers = " ".join(f"{k}={v}" for k, v in figures.items() if k not in ("bar", "met"))
        verdict = "met" if figures["met"] else "MISSED"
        lines.append(f"{name:<13} {numbers}  [{figures['bar']}: {verdict}]")
    return "\n".join(lines)


def _cpu_s(processes: Sequence[psutil.Process]) -> float:
    return float(sum(sum(p.cpu_times()[:2]) for p in processes))


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown"
