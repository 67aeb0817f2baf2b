"""What one caller at the doors costs the others: silent connections, failures, reads in a loop.

Each measurement takes signals of an honest tenant, each on a connection of its own, beside it.
"""

import contextlib
import multiprocessing
import os
import resource
import secrets
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from multiprocessing.synchronize import Event

from bench.figures import Figures, p99, spread
from bench.stack import Driver
from config.settings import Settings
from ingress.client import Client

_SIGNALS = 150
_SILENT = 1_200


def silent(driver: Driver) -> Figures:
    """Signals while 1,200 connections are held that never say a word, and what the log grew by."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * _SILENT, most), most))
    before, began = _logged(driver.settings), time.monotonic()
    with contextlib.ExitStack() as held:
        for _ in range(_SILENT):
            address = driver.settings.http_host, driver.settings.http_port
            held.enter_context(socket.create_connection(address))
        took_ms = _signals(driver)
        grown = (_logged(driver.settings) - before) / (time.monotonic() - began) * 60
    return spread(took_ms) | {
        "log_kib_a_minute": round(grown / 1024, 1),
        "bar": "p99 < 100 ms, log < 1 MB a minute",
        "met": p99(took_ms) < 100 and grown < 1e6,
    }


def _logged(settings: Settings) -> int:
    """The bytes of all logs."""
    return sum(file.stat().st_size for file in settings.log_dir.iterdir())


def failing(driver: Driver) -> Figures:
    """Signals beside 64 connections that send wrong signatures as fast as they are answered."""
    return _beside(driver, 64, _fail)


def reading(driver: Driver) -> Figures:
    """Signals beside one reader of a whole page of receipts, again and again."""
    for _ in range(7):  # a page of a thousand receipts
        _signals(driver)
    return _beside(driver, 1, _read)


def _beside(driver: Driver, connections: int, ask: Callable[[Client], None]) -> Figures:
    """Signals alone and beside ``ask``, by turns."""
    alone, beside = [], []
    for _ in range(3):
        alone += _signals(driver)
        with _busy(driver.settings, connections, ask):
            beside += _signals(driver)
    return spread(beside) | {
        "alone_p50_ms": spread(alone)["p50_ms"],
        "alone_p99_ms": round(p99(alone), 2),
        "bar": "p99 < 100 ms",
        "met": p99(beside) < 100,
    }


@contextlib.contextmanager
def _busy(settings: Settings, connections: int, ask: Callable[[Client], None]) -> Iterator[None]:
    """Ask again and again from a process of its own: it must not slow the one that measures."""
    spawning = multiprocessing.get_context("spawn")
    has_asked = spawning.Event()
    arguments = (settings, connections, ask, has_asked)
    other = spawning.Process(target=_ask_for_ever, args=arguments, daemon=True)
    other.start()
    try:
        if not has_asked.wait(30):
            raise RuntimeError("nothing was asked within 30 s: there is nothing to measure beside")
        yield
        if not other.is_alive():
            raise RuntimeError("who asked beside the measurement has ended: see its error above")
    finally:
        other.kill()
        other.join()


def _ask_for_ever(
    settings: Settings,
    connections: int,
    ask: Callable[[Client], None],
    has_asked: Event,
) -> None:
    def go_on() -> None:
        with Client(settings, timeout_s=30) as client:
            while True:
                ask(client)
                has_asked.set()

    with ThreadPoolExecutor(connections) as pool:
        asking = [pool.submit(go_on) for _ in range(connections)]
        ended, _ = wait(asking, return_when=FIRST_EXCEPTION)
        traceback.print_exception(ended.pop().exception())
        os._exit(1)  # the others would go on


def _fail(client: Client) -> None:
    answer = client.http.post(
        "/v1/tenants/bench-doors/signals", content=b"{}", headers={"X-Signature": "wrong"}
    )
    if answer.status_code not in (400, 429):
        raise RuntimeError(f"a wrong signature was answered with {answer.status_code}")


def _read(client: Client) -> None:
    client.receipts("bench-doors", limit=1000)


def _signals(driver: Driver) -> list[float]:
    """How long each of some signals took to be accepted, in milliseconds."""
    driver.subscribe("bench-doors")
    took_ms = []
    for _ in range(_SIGNALS):
        with Driver(driver.settings, secrets.token_hex(8)) as alone:
            started = time.perf_counter()
            alone.signal("bench-doors", "demo.succeed", {})
            took_ms.append((time.perf_counter() - started) * 1000)
    return took_ms


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {
    "silent": silent,
    "failing": failing,
    "reading": reading,
}
