"""Actions under way while workers, Valkey or what it holds are lost: what became of each."""

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import psutil

from adapters.local.waiting import until
from adapters.wiring import empty_memory
from bench.figures import Figures
from bench.stack import Driver, programs
from config.settings import Settings

ACTIONS, SECONDS_EACH, KILLED_AT = 50, 0.4, 8
LATE_AT_MOST_S = 5.0
_GIVE_UP_AFTER_S = 60.0
_ENDS = ("action_complete", "action_failed", "action_timeout")


def kill(settings: Settings, *names: str) -> None:
    """``kill -9`` of the supervisor's programs, children first."""
    running = programs(settings)
    for program in running.keys() & set(names):
        with suppress(psutil.NoSuchProcess):  # it went by itself, or its child did
            for member in [*running[program].children(), running[program]]:
                with suppress(psutil.NoSuchProcess):
                    member.kill()


def wipe(settings: Settings) -> None:
    """Empty the queue and Memory; what waits on a topic is a store of truth."""
    until(lambda: empty_memory(settings), _GIVE_UP_AFTER_S)  # not while the server starts


HARMS: dict[str, Callable[[Settings], None]] = {
    "workers": lambda settings: kill(settings, "actions", "runbooks", "health"),
    "valkey": lambda settings: kill(settings, "valkey"),
    "wipe": wipe,
}


def harmed(driver: Driver, harm: str) -> Figures:
    """50 actions of 400 ms, harmed at the start of the eighth; what their receipts say in the end.

    Raises:
        TimeoutError: some had not ended a minute later.
    """
    account = f"kills-{harm}"
    driver.subscribe(account)
    with ThreadPoolExecutor(8) as asking:
        signal = partial(driver.signal, account, "demo.sleep", {"seconds": SECONDS_EACH})
        asked = [asking.submit(signal) for _ in range(ACTIONS)]
        locations = [each.result() for each in asked]
    ids = {location.rpartition("/")[2] for location in locations}
    until(lambda: _starts(driver.settings, ids).total() >= KILLED_AT, _GIVE_UP_AFTER_S)
    HARMS[harm](driver.settings)
    harmed_at = time.monotonic()
    started = len(_starts(driver.settings, ids))
    for location in locations:
        until(lambda at=location: driver.read(at).get("ended_at"), _GIVE_UP_AFTER_S)  # type: ignore[misc]
    took_s = time.monotonic() - harmed_at
    rounds = -(-(ACTIONS - started) // driver.settings.actions_concurrency)
    receipts = driver.receipts(account, limit=1000)
    ends = Counter(r["action_id"] for r in receipts if r["operation"] in _ENDS)
    said = Counter(r["operation"] for r in receipts)
    return {
        "ended_once": sum(1 for action_id in ids if ends[action_id] == 1),
        "complete": said["action_complete"],
        "started_twice": sum(1 for n in _starts(driver.settings, ids).values() if n > 1),
        "last_after_ideal_s": round(took_s - rounds * SECONDS_EACH, 2),
    }


def kills(driver: Driver) -> Figures:
    """Each harm once: nothing lost, nothing started twice, and soon at work again."""
    found = {}
    for harm in HARMS:
        found[harm] = harmed(driver, harm)
        until(lambda: driver.http.get("/readyz").status_code == 200, _GIVE_UP_AFTER_S)
    met = all(
        each["ended_once"] == ACTIONS
        and each["complete"] >= 40
        and each["started_twice"] == 0
        and each["last_after_ideal_s"] <= LATE_AT_MOST_S
        for each in found.values()
    )
    bar = f"all {ACTIONS} end once, none starts twice, ≥ 40 complete, last ≤ 5 s after ideal"
    return found | {"bar": bar, "met": met}


def _starts(settings: Settings, ids: set[str]) -> Counter[str]:
    """How often each action was started, by its handler's own notes."""
    file = settings.demo_file
    lines = map(json.loads, file.read_text().splitlines() if file.exists() else [])
    return Counter(
        line["action_id"] for line in lines if line["event"] == "start" and line["action_id"] in ids
    )


MEASUREMENTS = {"kills": kills}
