"""A run of seven empty journalled steps beside a bare Celery chain of seven tasks.

``celery -A bench.measures.chain worker -Q bench`` carries out both; ``python -m
bench.measures.chain`` starts them by turns, in the environment of a running stack, and prints the
times as JSON.
"""

import asyncio
import json
import subprocess
import sys
import threading
import time

from celery import chain
from kombu import Exchange, Queue

from adapters import wiring
from bench.figures import Figures, p99, spread
from bench.stack import Driver, worker_beside
from config.settings import environment, load
from governor.records import Record
from governor.runs import Run, Trigger
from ports import Ports
from ports.documents import Create
from tasks import links
from tasks.celery import PUBLISH_ONCE, app
from tasks.manual import Manual
from tasks.receipts.commit import receipt
from tasks.runs import intake
from tasks.runs.definition import MAX_STEP_S, Runbook, Step

QUEUE = "bench"
STEPS = 7
TURNS = 150
ACCOUNT = "bench-chain"


def steps(driver: Driver) -> Figures:
    """Both by turns, on the same broker and as many children as the stack's own worker has."""
    settings = driver.settings
    with worker_beside(settings, "bench.measures.chain", QUEUE, settings.runbooks_concurrency):
        done = subprocess.run(
            [sys.executable, "-m", "bench.measures.chain"],
            env=environment(settings),
            stdout=subprocess.PIPE,
            check=True,
            timeout=600,
        )
    told = json.loads(done.stdout)
    bare, ours = spread(told["bare"]), spread(told["ours"])
    ratio = ours["p50_ms"] / bare["p50_ms"]
    return ours | {
        "bare_p50_ms": bare["p50_ms"],
        "bare_p99_ms": round(p99(told["bare"]), 2),
        "ratio": round(ratio, 2),
        "bar": "median ≤ 1.8 times the chain's, aim 1.4",
        "met": ratio <= 1.8,
    }


@app.on_after_configure.connect
def _own_queue(sender: object, **_: object) -> None:
    app.conf.task_queues.append(Queue(QUEUE, Exchange(QUEUE), routing_key=QUEUE))
    app.conf.task_routes["bench.*"] = {"queue": QUEUE}


@app.task(name="bench.bare")
def bare(left: int, token: str) -> None:
    """One link of the bare chain; the last tells that it came to its end."""
    if left == 1:
        wiring.ports().announcements.announce(token)


def _ended(ports: Ports, run: Run) -> Create:
    """A run ends with a receipt, whatever it did."""
    return receipt(
        ports,
        "compensation_failed",
        run.account_id,
        run.run_id,
        status="failed",
        run_id=run.run_id,
        failed_step="none",
        error_code="none",
        error_sha256="0" * 64,
    )


class Inputs(Record):
    """What the runs are started with."""

    text: str


RUNBOOK = Runbook(
    name="bench",
    manual=Manual(0, "Seven empty steps", "", "", Inputs, (), (), (), ()),
    steps=tuple(Step(f"bench.step_{n}", "Documents", "nothing", "") for n in range(STEPS)),
    succeeded=lambda ports, run: ((), _ended(ports, run)),
    refused=lambda ports, run, _step: [_ended(ports, run)],
    ended=lambda _ports, _run: None,
)
links.register({RUNBOOK.name: RUNBOOK})


class _Ends:
    """When this process received the notice that each run or chain ended."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._told = threading.Condition()
        threading.Thread(target=lambda: asyncio.run(self._listen()), daemon=True).start()

    async def _listen(self) -> None:
        async for name in wiring.open_notices(load()).ended_runs():
            with self._told:
                self._at[name] = time.perf_counter()
                self._told.notify_all()

    def is_heard(self, ports: Ports) -> bool:
        """Whether an announcement made now is heard, within a moment."""
        ports.announcements.announce("heard")
        with self._told:
            return self._told.wait_for(lambda: "heard" in self._at, 0.05)

    def wait(self, name: str, within_s: float = 30) -> float:
        with self._told:
            if not self._told.wait_for(lambda: name in self._at, within_s):
                raise TimeoutError(f"{name} did not end")
            return self._at[name]


def _bare_ms(ends: _Ends, token: str) -> float:
    links = [
        app.signature(
            "bench.bare",
            args=(STEPS - n, token),
            immutable=True,
            queue=QUEUE,
            time_limit=MAX_STEP_S,
        )
        for n in range(STEPS)
    ]
    started = time.perf_counter()
    chain(*links).apply_async(retry_policy=PUBLISH_ONCE)
    return (ends.wait(token) - started) * 1000


def _ours_ms(ports: Ports, ends: _Ends, token: str) -> float:
    """A run as anything starts one: stored with its turn, then sent as a chain."""
    account_id = f"{ACCOUNT}-{token}"
    started = time.perf_counter()
    run = intake.new_run(
        ports,
        RUNBOOK,
        {"text": "nothing"},
        account_id=account_id,
        trigger=Trigger.COMMAND,
        dedupe_key=token,
    )
    intake.begin(ports, RUNBOOK, run)
    return (ends.wait(run.run_id) - started) * 1000


def _measure() -> dict[str, list[float]]:
    ports, ends = wiring.ports(), _Ends()
    while not ends.is_heard(ports):
        pass  # the listener is still subscribing
    took: dict[str, list[float]] = {"bare": [], "ours": []}
    for n in range(-10, TURNS):  # the first ones warm up
        bare_ms = _bare_ms(ends, f"bare-{n}")
        ours_ms = _ours_ms(ports, ends, f"ours-{n}")
        if n >= 0:
            took["bare"].append(bare_ms)
            took["ours"].append(ours_ms)
    return took


if __name__ == "__main__":
    print(json.dumps(_measure()))
