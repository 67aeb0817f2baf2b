"""Runs measured: webhooks at once, one event many times, many accounts, steps beside a chain."""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Mapping, Sequence
from multiprocessing.synchronize import Event

import httpx

from adapters.wiring import open_ports
from bench.figures import Figures, p99, spread, timed
from bench.measures import chain
from bench.stack import Driver
from config.settings import Settings
from tasks.governors import policies

AT_ONCE = 50
MANY = 1_000


def burst(driver: Driver) -> Figures:
    """50 webhooks at once, each for a new account, three times; each answer's time."""
    took_ms: list[float] = []
    for turn in range(3):
        events = [driver.event(f"bench-burst-{turn}-{n}") for n in range(AT_ONCE)]
        answers = asyncio.run(_at_once(driver, events))
        _require_200(answers)
        took_ms += [took for _answer, took in answers]
    return spread(took_ms) | {"bar": "all 200, p99 < 2000 ms", "met": p99(took_ms) < 2000}


def same_webhook(driver: Driver) -> Figures:
    """One webhook 50 times at once, three times, while another process reads and sends signals."""
    driver.subscribe("bench-beside")
    took_ms: list[float] = []
    equal = True
    stop = multiprocessing.Event()
    beside: multiprocessing.Queue[tuple[str, float]] = multiprocessing.Queue()
    prober = multiprocessing.Process(target=_probe, args=(driver.settings, stop, beside))
    prober.start()
    beside.get()  # it has begun
    for turn in range(3):
        answers = asyncio.run(_at_once(driver, [driver.event(f"bench-same-{turn}")] * AT_ONCE))
        _require_200(answers)
        equal = equal and len({answer.content for answer, _took in answers}) == 1
        took_ms += [took for _answer, took in answers]
    stop.set()
    seen: dict[str, list[float]] = {"healthz": [], "signal": []}
    while (told := beside.get())[0]:
        seen[told[0]].append(told[1])
    prober.join()
    worst = {f"{what}_max_ms": round(max(values), 1) for what, values in seen.items()}
    return (
        spread(took_ms)
        | worst
        | {
            "equal": equal,
            "bar": "equal receipts, healthz and signals < 100 ms meanwhile",
            "met": equal and all(ms < 100 for ms in worst.values()),
        }
    )


def policy_application(driver: Driver) -> Figures:
    """Find, load and check the policy of SKU and plan, uncached, as a run's first step does."""
    ports = open_ports(driver.settings)
    took_ms = []
    for _ in range(200):
        policies.forget_loaded()
        took_ms.append(timed(lambda: policies.in_force(ports, "demo-sku", "enterprise")))
    ports.documents.close()
    return spread(took_ms) | {"bar": "max < 100 ms", "met": max(took_ms) < 100}


def many_accounts(driver: Driver) -> Figures:
    """1,000 accounts subscribed one after the other: the last hundred against the first."""
    took_ms = [
        timed(lambda n=n: driver.subscribe(f"bench-many-{n}"))  # type: ignore[misc]
        for n in range(MANY)
    ]
    hundreds = [round(statistics.median(took_ms[n : n + 100]), 1) for n in range(0, MANY, 100)]
    growth = hundreds[-1] / hundreds[0]
    return {
        "median_ms_by_hundreds": hundreds,
        "growth": round(growth, 2),
        "bar": "flat: last hundred ≤ 1.5 times the first",
        "met": growth <= 1.5,
    }


async def _at_once(
    driver: Driver, events: Sequence[Mapping[str, str]]
) -> list[tuple[httpx.Response, float]]:
    limits = httpx.Limits(max_connections=len(events))
    base_url = str(driver.http.base_url)
    async with httpx.AsyncClient(
        base_url=base_url, timeout=60, trust_env=False, limits=limits
    ) as http:

        async def post(event: Mapping[str, str]) -> tuple[httpx.Response, float]:
            started = time.perf_counter()
            answer = await http.send(driver.webhook_request(event))
            return answer, (time.perf_counter() - started) * 1000

        return list(await asyncio.gather(*(post(event) for event in events)))


def _require_200(answers: Sequence[tuple[httpx.Response, float]]) -> None:
    for answer, _took in answers:
        if answer.status_code != 200:
            raise RuntimeError(f"a webhook was answered {answer.status_code}: {answer.text}")


def _probe(
    settings: Settings, stop: Event, told: "multiprocessing.Queue[tuple[str, float]]"
) -> None:
    """Read ``/healthz`` and send signals, by turns, until ``stop`` is set."""
    driver = Driver(settings, "beside")
    told.put(("", 0.0))
    while not stop.is_set():
        told.put(("healthz", timed(lambda: driver.http.get("/healthz").raise_for_status())))
        told.put(("signal", timed(lambda: driver.signal("bench-beside", "demo.succeed", {}))))
        time.sleep(0.01)
    told.put(("", 0.0))


MEASUREMENTS = {
    "burst": burst,
    "same_webhook": same_webhook,
    "policy_application": policy_application,
    "steps": chain.steps,
}
ON_REQUEST = {"many_accounts": many_accounts}
"""Takes a minute."""
