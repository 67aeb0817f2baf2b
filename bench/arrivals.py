"""An open model of load: arrivals at a rate, whether or not the system keeps up: ``make load``.

A closed loop (each client waits for its answer) hides what waits behind a slow answer. Here each
arrival has its moment beforehand, and latency counts from that moment (no coordinated omission).
"""

import asyncio
import itertools
import json
import random
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer

from adapters.local.secret_files import SecretFiles
from adapters.wiring import open_ports
from bench.figures import p99
from bench.measure import machine
from bench.measures import scale
from bench.pictures import draw, page
from bench.stack import Driver, family, stack
from config.settings import Settings
from ingress.signature import sign

TENANTS = 40
BURST = 10
"""How many times its rate a step has in its burst."""

_WARM_MINUTES = 20
"""Of a steady load these do not count: caches fill."""

_WEBHOOK_EACH = 200
"""One arrival in so many is a subscription."""


@dataclass
class Step:
    """What became of the arrivals of one rate."""

    per_s: float
    latencies_ms: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def row(self) -> dict[str, Any]:
        """As figures."""
        accepted = self.answers["202"] + self.answers["200"]
        ordered = sorted(self.latencies_ms)
        return {
            "per_s": self.per_s,
            "arrivals": self.answers.total(),
            "accepted": accepted,
            "refused": self.answers["429"] + self.answers["503"],
            "unanswered": self.answers["none"],
            "p50_ms": round(statistics.median(ordered), 1) if ordered else 0.0,
            "p99_ms": round(p99(ordered), 1) if ordered else 0.0,
            "max_ms": round(ordered[-1], 1) if ordered else 0.0,
            "answers": dict(self.answers),
        }


class Arrivals:
    """Signals of many tenants, and subscriptions, at moments of chance."""

    def __init__(self, driver: Driver) -> None:
        self._driver, self._settings = driver, driver.settings
        self._names = [f"load-{n}" for n in range(TENANTS)]
        for name in self._names:
            driver.subscribe(name)
        secrets = SecretFiles(self._settings.secrets_dir)
        self._keys = {name: secrets.published_tenant_key(name) for name in self._names}
        self._webhook_secret = secrets.webhook_secrets()[0]
        self._numbers = itertools.count(1)

    async def step(self, per_s: float, seconds: float) -> Step:
        """Arrivals at this rate (Poisson), for so long; all are answered or given up at its end."""
        done = Step(per_s)
        limits = httpx.Limits(max_connections=500, max_keepalive_connections=200)
        url = f"http://{self._settings.http_host}:{self._settings.http_port}"
        async with httpx.AsyncClient(
            base_url=url, timeout=10, limits=limits, trust_env=False
        ) as http:
            began_s, at_s = time.monotonic(), 0.0
            asked: set[asyncio.Task[None]] = set()
            while at_s < seconds:
                await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
                asked.add(asyncio.create_task(self._arrive(http, done, began_s + at_s)))
                at_s += random.expovariate(per_s)
            await asyncio.gather(*asked)
        return done

    async def _arrive(self, http: httpx.AsyncClient, done: Step, due_s: float) -> None:
        number = next(self._numbers)
        try:
            answer = await (
                self._subscribe(http, number)
                if number % _WEBHOOK_EACH == 0
                else self._signal(http, number)
            )
        except httpx.TransportError:
            done.answers["none"] += 1
            return
        done.answers[str(answer.status_code)] += 1
        done.latencies_ms.append((time.monotonic() - due_s) * 1000)

    async def _signal(self, http: httpx.AsyncClient, number: int) -> httpx.Response:
        name = self._names[number % TENANTS]
        signal = {"signal_id": f"l-{number}", "type": "demo.succeed", "payload": {}}
        body = json.dumps(signal).encode()
        headers = {"X-Signature": sign(body, self._keys[name])}
        return await http.post(f"/v1/tenants/{name}/signals", content=body, headers=headers)

    async def _subscribe(self, http: httpx.AsyncClient, number: int) -> httpx.Response:
        event = self._driver.event(f"load-new-{number}")
        body = json.dumps({**event, "event_id": f"load-{number}"}).encode()
        headers = {"X-Entitlement-Signature": sign(body, self._webhook_secret)}
        return await http.post("/v1/webhooks/marketplace", content=body, headers=headers)


def memory_mib(settings: Settings) -> dict[str, float]:
    """What each process holds for itself (USS), by program and process id."""
    found = dict[str, float]()
    for process in family(settings):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            program = process.environ().get("SUPERVISOR_PROCESS_NAME", "supervisor")
            found[f"{program}-{process.pid}"] = process.memory_full_info().uss / 2**20
    return found


def slope_mib_per_h(samples: list[tuple[float, float]]) -> float:
    """The median of the slopes of all pairs (Theil and Sen): a leap of one sample moves it not."""
    pairs = itertools.combinations(samples, 2)
    slopes = [(after[1] - before[1]) / (after[0] - before[0]) * 3600 for before, after in pairs]
    return statistics.median(slopes) if slopes else 0.0


def knee(rows: list[dict[str, Any]]) -> float | None:
    """The highest rate that was answered with p99 below 250 ms and without a refusal."""
    fine = [r["per_s"] for r in rows if r["p99_ms"] < 250 and not r["refused"] + r["unanswered"]]
    return max(fine) if fine else None


async def _soak(
    arrivals: Arrivals, settings: Settings, per_s: float, minutes: float
) -> dict[str, dict[str, Any]]:
    """Memory of each process under a steady rate: its slope after twenty minutes, or a fifth.

    A process that was replaced has too few samples for a slope, and is left out.
    """
    samples = dict[str, list[tuple[float, float]]]()
    rounds = max(5, round(minutes))
    for number in range(rounds):
        await arrivals.step(per_s, minutes * 60 / rounds)
        print(f"soak: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        if number >= min(_WARM_MINUTES, rounds / 5):
            for name, mib in memory_mib(settings).items():
                samples.setdefault(name, []).append((time.monotonic(), mib))
    return {
        name: {
            "slope_per_h": round(slope_mib_per_h(found), 2),
            "first": round(found[0][1], 1),
            "last": round(found[-1][1], 1),
            "each_ten": [round(mib, 1) for _, mib in found[::10]],
        }
        for name, found in samples.items()
        if len(found) > rounds / 2
    }


def main(
    rates: Annotated[str, typer.Option(help="Arrivals a second, one step each.")] = "25,50,100,200",
    seconds: Annotated[float, typer.Option(help="How long each step lasts.")] = 20,
    soak_minutes: Annotated[float, typer.Option(help="Then a steady load for so long.")] = 0,
    folder: Annotated[Path | None, typer.Option(help="Write load.html and load.json here.")] = None,
) -> None:
    """Load a stack of its own, step by step and with a burst; say where the knee is."""
    random.seed(1)
    with stack() as driver:
        arrivals = Arrivals(driver)
        asyncio.run(arrivals.step(10, 5))  # warm
        steps = [asyncio.run(arrivals.step(float(rate), seconds)) for rate in rates.split(",")]
        first = steps[0].per_s
        ports = open_ports(driver.settings)
        scale.prepare_burst(driver, ports)
        with ThreadPoolExecutor(1) as beside:  # another tenant's, whose limit follows it
            came = beside.submit(scale.burst, ports)
            burst = asyncio.run(arrivals.step(first * BURST, seconds / 4))
            after = asyncio.run(arrivals.step(first, 3 * seconds))
            came.result()
        told: dict[str, Any] = {
            "machine": machine(),
            "steps": [step.row() for step in steps],
            "burst": burst.row(),
            "after_the_burst": after.row(),
            "scaled_meanwhile": scale.changes(ports),
        }
        ports.documents.close()
        if soak_minutes:
            told["memory_mib"] = asyncio.run(_soak(arrivals, driver.settings, first, soak_minutes))
    told["knee_per_s"] = knee(told["steps"])
    text = json.dumps(told, indent=1)
    print(text)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "load.json").write_text(text + "\n")
        (folder / "load.html").write_text(page(told))
        draw(folder / "load.html")


if __name__ == "__main__":
    typer.run(main)
