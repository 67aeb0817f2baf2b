"""The ledger measured: writers on one account, a large ledger judged and archived, its growth."""

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

from adapters.wiring import open_ports
from bench.figures import Figures
from bench.stack import Driver
from config.settings import Settings, environment
from ports import Ports
from ports.documents import Create
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import StoredLog
from tasks.receipts.commit import commit_once, receipt

_BATCH = 400
LARGE = 100_000
GROWTH = (1_000, 10_000, 100_000, 1_000_000)


def emitters(driver: Driver) -> Figures:
    """50 processes that emit on one account against one, by turns, and when all is sealed."""
    rates: dict[int, list[float]] = {1: [], 50: []}
    took_ms: list[float] = []
    sealed_s = []
    for turn in range(3):
        for writers, each in ((1, 1500), (50, 40)):
            account_id = f"bench-emit-{writers}-{turn}"
            rate, took = _burst(driver.settings, account_id, writers, each)
            rates[writers].append(rate)
            if writers == 50:
                took_ms += took
                sealed_s.append(until_sealed(driver.settings, account_id, writers * each))
    one, fifty = (statistics.median(rates[writers]) for writers in (1, 50))
    median, p99 = statistics.median(took_ms), sorted(took_ms)[int(len(took_ms) * 0.99)]
    return {
        "one_per_s": round(one),
        "fifty_per_s": round(fifty),
        "ratio": round(fifty / one, 2),
        "p50_ms": round(median, 1),
        "p99_ms": round(p99, 1),
        "sealed_after_s": round(max(sealed_s), 2),
        "bar": "ratio ≥ 0.9, p99 ≤ 5 p50, sealed ≤ 1 s after",
        "met": fifty >= 0.9 * one and p99 <= 5 * median and max(sealed_s) <= 1,
    }


def large_ledger(driver: Driver) -> Figures:
    """100,000 receipts judged by ``ggen verify-ledger`` and archived, with all their memory."""
    settings, account_id = driver.settings, "bench-large"
    ports = open_ports(settings)
    fill(ports, account_id, LARGE)
    until_sealed(settings, account_id, LARGE, within_s=300)
    ports.documents.close()
    archive = settings.state_dir / "large.tar.gz"
    verify_s, verify_mib = _measured(settings, "verify-ledger", "--account-id", account_id)
    archive_s, archive_mib = _measured(
        settings,
        "export-receipts",
        "--account-id",
        account_id,
        "--format",
        "archive",
        "--output",
        str(archive),
    )
    keys = settings.state_dir / "bench-keys.json"
    _measured(settings, "keys", "export", "--output", str(keys))
    far_s, far_mib = _measured(settings, "verify-archive", str(archive), "--trust", str(keys))
    return {
        "receipts": LARGE,
        "verify_s": verify_s,
        "verify_mib": verify_mib,
        "archive_s": archive_s,
        "archive_mib": archive_mib,
        "archive_size_mib": round(archive.stat().st_size / 2**20, 1),
        "verify_archive_s": far_s,
        "verify_archive_mib": far_mib,
        "bar": "verified ≤ 15 s and ≤ 300 MiB, archived ≤ 20 s",
        "met": verify_s <= 15 and verify_mib <= 300 and archive_s <= 20,
    }


def growth(driver: Driver) -> Figures:
    """What sealing costs when a ledger has 10³ to 10⁶ entries: one new receipt, and 1,000."""
    with tempfile.TemporaryDirectory(dir=driver.settings.state_dir) as name:
        settings = driver.settings.model_copy(
            update={
                "documents_url": f"sqlite://{name}/documents.db",
                "objects_url": f"file://{name}/objects",
            }
        )
        ports = open_ports(settings)
        figures: Figures = {}
        size = 0
        for entries in GROWTH:
            fill(ports, "bench-growth", entries - size, start=size)
            while not seal_ledger(ports, "bench-growth"):
                pass
            size = entries
            figures[f"{entries:_}"] = {
                "one_ms": _sealing_ms(ports, 1, 20),
                "thousand_ms": _sealing_ms(ports, 1000, 3),
            }
            size += 20 + 3000
        ports.documents.close()
    first, last = (figures[f"{n:_}"]["thousand_ms"] for n in (GROWTH[0], GROWTH[-1]))
    return figures | {
        "bar": "1,000 new ones cost at 10⁶ at most twice what they cost at 10³",
        "met": last <= 2 * first,
    }


def _burst(
    settings: Settings, account_id: str, writers: int, each: int
) -> tuple[float, list[float]]:
    """Emissions a second by so many processes, and how long each took."""
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(writers), context.SimpleQueue()
    children = [
        context.Process(target=_emit, args=(settings, account_id, n, each, start, results))
        for n in range(writers)
    ]
    for child in children:
        child.start()
    told = [results.get() for _ in children]
    for child in children:
        child.join()
    seconds = max(ended for _, ended, _ in told) - min(began for began, _, _ in told)
    return writers * each / seconds, [ms for _, _, took in told for ms in took]


def _emit(
    settings: Settings, account_id: str, writer: int, each: int, start: Any, results: Any
) -> None:
    ports = open_ports(settings)
    ports.documents.get("bench/none"), ports.unsealed.unsealed_count(), ports.keys.signer()
    start.wait()
    took, began = [], time.monotonic()
    for n in range(each):
        at = time.perf_counter()
        commit_once(ports, [_receipt(ports, account_id, f"{writer}-{n}")])
        took.append((time.perf_counter() - at) * 1000)
    results.put((began, time.monotonic(), took))
    ports.documents.close()


def _receipt(
    ports: Ports, account_id: str, subject: str, entitlement_id: str = "demo-sku"
) -> Create:
    return receipt(
        ports,
        "action_complete",
        account_id,
        subject,
        action_id=f"action-{subject}",
        entitlement_id=entitlement_id,
        sku_id="demo-sku",
        signal_type="demo.succeed",
        handler="demo.succeed",
        policy_version="1.0.0",
        queue_ms=1,
        run_ms=2,
    )


def fill(
    ports: Ports, account_id: str, count: int, start: int = 0, entitlement_id: str = "demo-sku"
) -> None:
    """Put receipts of actions that never were into an account's ledger."""
    for at in range(start, start + count, _BATCH):
        end = min(at + _BATCH, start + count)
        made = [_receipt(ports, account_id, str(n), entitlement_id) for n in range(at, end)]
        commit_once(ports, made)


def until_sealed(settings: Settings, account_id: str, size: int, within_s: float = 30) -> float:
    """Seconds until that many receipts are sealed and signed."""
    ports, began = open_ports(settings), time.monotonic()
    while (passed := time.monotonic() - began) < within_s:
        last = StoredLog.of(ports, account_id).newest_signed()
        if last and last.tree_size >= size:
            break
        time.sleep(0.01)
    ports.documents.close()
    return passed


def _sealing_ms(ports: Ports, new: int, times: int) -> float:
    took = []
    for n in range(times):
        subject = f"{time.monotonic_ns()}-{n}"
        made = [_receipt(ports, "bench-growth", f"{subject}-{m}") for m in range(new)]
        for at in range(0, new, _BATCH):
            commit_once(ports, made[at : at + _BATCH])
        began = time.perf_counter()
        while not seal_ledger(ports, "bench-growth"):
            pass
        took.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(took), 1)


def _measured(settings: Settings, *arguments: str) -> tuple[float, float]:
    """Seconds a command took, and the most memory (RSS, all its processes) it had at once."""
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *arguments],
        env=environment(settings),
        stdout=subprocess.DEVNULL,
    ) as process:
        peak = _Peak(process.pid)
        code = process.wait()
    seconds = round(time.monotonic() - began, 1)
    if code:
        raise RuntimeError(f"{arguments[0]} ended with {code}")
    return seconds, round(peak.mib(), 1)


class _Peak:
    """Watches a family of processes until it is gone."""

    def __init__(self, pid: int) -> None:
        self._pid, self._bytes = pid, 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def mib(self) -> float:
        self._thread.join()
        return self._bytes / 2**20

    def _watch(self) -> None:
        while psutil.pid_exists(self._pid):
            try:
                process = psutil.Process(self._pid)
                family = [process, *process.children(recursive=True)]
                self._bytes = max(self._bytes, sum(p.memory_info().rss for p in family))
            except psutil.Error:
                pass
            time.sleep(0.05)


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {
    "emitters": emitters,
    "large_ledger": large_ledger,
}
ON_REQUEST: dict[str, Callable[[Driver], Figures]] = {"growth": growth}
"""Measured when named: takes minutes."""
