"""Actions measured: exact deadlines and rollbacks; the overhead beside a bare Celery task.

``celery -A bench.measures.actions worker -Q bench`` carries out the bare task; ``python -m
bench.measures.actions`` submits both in process, by turns, in the environment of a running stack,
and prints JSON.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kombu import Exchange, Queue

from adapters import wiring
from adapters.local.waiting import until
from adapters.wiring import open_ports
from bench.figures import Figures, p99, spread
from bench.handlers import FILE, WAYS
from bench.stack import Driver, worker_beside
from config.settings import environment, load
from governor import paths
from governor.actions import Action
from ingress.submissions import ON_SQLITE
from ports import Ports
from tasks.actions.admit import Signal, submit_all
from tasks.celery import PUBLISH_ONCE, app
from tasks.governors import policies

QUEUE = "bench"
ACCOUNT = "bench-actions"
SKU = "bench-sku"
AT_ONCE, ROUNDS = 8, 25
BURST, ONE_BY_ONE, TURNS = 1_000, 200, 3
_FINAL = ("complete", "failed", "rolled_back", "rollback_failed")


def deadlines(driver: Driver) -> Figures:
    """How late 500 ms end a handler, 8 at once, 200 times in each way of standing still."""
    subscribe(driver)
    for way in WAYS:
        for _ in range(ROUNDS):
            waiting = [driver.signal(ACCOUNT, "bench.block", {"by": way}) for _ in range(AT_ONCE)]
            for location in waiting:
                driver.wait_action(location)
    late_ms: dict[str, list[float]] = defaultdict(list)
    undone_ms: list[float] = []
    for seen in _noted(driver).values():
        late_ms[str(seen["by"])].append((seen["ended"] - seen["started"]) * 1000 - 500)
        undone_ms.append((seen["rolled_back"] - seen["ended"]) * 1000)
    every = [ms for values in late_ms.values() for ms in values]
    ways = {
        f"{way}_p50_p99_ms": [round(statistics.median(values), 2), round(p99(values), 2)]
        for way, values in late_ms.items()
    }
    exact = all(statistics.median(v) <= 1 and p99(v) <= 5 for v in late_ms.values())
    return (
        spread(every)
        | ways
        | {
            "earliest_ms": round(min(every), 3),
            "rolled_back_p50_ms": round(statistics.median(undone_ms), 1),
            "rolled_back_p99_ms": round(p99(undone_ms), 1),
            "bar": "never early, p50 ≤ 1 and p99 ≤ 5 ms in each way; rolled back p99 < 20 ms",
            "met": exact and min(every) > -0.05 and p99(undone_ms) < 20,
        }
    )


def overhead(driver: Driver) -> Figures:
    """Throughput and latency of a no-op action beside a bare task's, submitted in process."""
    subscribe(driver)
    settings = driver.settings
    with worker_beside(settings, "bench.measures.actions", QUEUE, settings.actions_concurrency):
        done = subprocess.run(
            [sys.executable, "-m", "bench.measures.actions"],
            env=environment(settings),
            stdout=subprocess.PIPE,
            check=True,
            timeout=600,
        )
    told = json.loads(done.stdout)
    rate = {name: statistics.median(values) for name, values in told["per_s"].items()}
    took = {name: spread(values) for name, values in told["took_ms"].items()}
    throughput = rate["action"] / rate["bare"]
    latency = took["action"]["p50_ms"] / took["bare"]["p50_ms"]
    return took["action"] | {
        "bare_p50_ms": took["bare"]["p50_ms"],
        "bare_p99_ms": took["bare"]["p99_ms"],
        "per_s": round(rate["action"]),
        "bare_per_s": round(rate["bare"]),
        "in_turn_per_s": round(rate["in turn"]),
        "throughput": round(throughput, 2),
        "throughput_in_turn": round(rate["in turn"] / rate["bare"], 2),
        "latency": round(latency, 2),
        "bar": "throughput ≥ 0.6 times the bare task's (aim 1.0), p50 ≤ 2.5 times (aim 2)",
        "met": throughput >= 0.6 and latency <= 2.5,
    }


def subscribe(driver: Driver, account_id: str = ACCOUNT) -> None:
    """A customer whose plan sets no limit that a measurement would meet."""
    kinds = {name: name for name in ("bench.noop", "bench.block", "bench.wait")}
    policy = {
        "sku_id": SKU,
        "plan_type": "starter",
        "policy_version": "1.0.0",
        "quota": {
            "monthly_actions": 10**9,
            "concurrent_actions": 10_000,
            "max_concurrent_actions": 10_000,
        },
        "permissions": list(kinds),
        "signals": kinds,
        "actions": {name: {"handler": name, "queue_timeout_ms": 15_000} for name in kinds},
    }
    ports = open_ports(driver.settings)
    policies.register(ports, json.dumps(policy).encode())
    ports.documents.close()
    driver.subscribe(account_id, "starter", SKU)


def _noted(driver: Driver) -> dict[str, dict[str, float]]:
    seen: dict[str, dict[str, float]] = defaultdict(dict)
    for line in (driver.settings.state_dir / FILE).read_text().splitlines():
        told = json.loads(line)
        seen[told.pop("action_id")].update(told)
    return seen


# -- in the environment of the stack: both kinds, submitted in process


@app.on_after_configure.connect
def _own_queue(sender: object, **_: object) -> None:
    if QUEUE not in {queue.name for queue in app.conf.task_queues}:
        app.conf.task_queues.append(Queue(QUEUE, Exchange(QUEUE), routing_key=QUEUE))


def _bare_file() -> Path:
    return load().state_dir / "bench-bare"


@app.task(name="bench.noop")
def noop() -> None:
    """Does nothing, and leaves a byte to say that it was done."""
    fd = os.open(_bare_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, b".")
    os.close(fd)


class _Bare:
    def __init__(self) -> None:
        self._sent = 0

    def submit(self) -> None:
        noop.apply_async(queue=QUEUE, time_limit=4, retry_policy=PUBLISH_ONCE)
        self._sent += 1

    def submit_at_once(self, count: int) -> None:
        for _ in range(count):  # Celery has no other way
            self.submit()

    def all_done(self) -> bool:
        file = _bare_file()
        return file.exists() and file.stat().st_size >= self._sent


class _Ours:
    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._waiting: list[str] = []
        self._sent = 0

    def submit(self) -> None:
        self.submit_at_once(1)

    def submit_at_once(self, count: int) -> None:
        """As the ingress does with signals that wait at the same time."""
        together = ON_SQLITE.together
        for first in range(0, count, together):
            signals = [self._signal() for _ in range(min(together, count - first))]
            for answer in submit_all(self._ports, signals):
                if isinstance(answer, Exception):
                    raise answer
                self._waiting.append(paths.action_path(ACCOUNT, answer))

    def _signal(self) -> Signal:
        self._sent += 1
        return Signal(ACCOUNT, f"in-process-{self._sent}", "bench.noop", None, {})

    def all_done(self) -> bool:
        while self._waiting:
            found = self._ports.documents.get(self._waiting[-1])
            if found is None or Action.model_validate(found.data).state not in _FINAL:
                return False
            self._waiting.pop()
        return True


def _measure() -> dict[str, dict[str, list[float]]]:
    kinds: dict[str, _Bare | _Ours] = {"bare": _Bare(), "action": _Ours(wiring.ports())}
    took_ms: dict[str, list[float]] = defaultdict(list)
    per_s: dict[str, list[float]] = defaultdict(list)
    for n in range(-20, ONE_BY_ONE):  # the first ones warm up
        for name, kind in kinds.items():
            started = time.perf_counter()
            kind.submit()
            until(kind.all_done, 600, 0.0002)
            if n >= 0:
                took_ms[name].append((time.perf_counter() - started) * 1000)
    ways: dict[str, Callable[[], object]] = {
        "bare": partial(kinds["bare"].submit_at_once, BURST),
        "action": partial(kinds["action"].submit_at_once, BURST),
        "in turn": lambda: [kinds["action"].submit() for _ in range(BURST)],
    }
    for _ in range(TURNS):
        for name, submit in ways.items():
            started = time.perf_counter()
            submit()
            until(lambda: all(kind.all_done() for kind in kinds.values()), 600, 0.005)
            per_s[name].append(BURST / (time.perf_counter() - started))
    return {"took_ms": took_ms, "per_s": per_s}


if __name__ == "__main__":
    print(json.dumps(_measure()))
