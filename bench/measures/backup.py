"""What a copy costs while it is made, and how soon a lost machine is at work again."""

import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from adapters.local.system import free_ports
from adapters.local.waiting import until
from bench.figures import Figures, p99
from bench.load import Load
from bench.stack import Driver, ggen
from config.settings import Settings

_ACCOUNT = "bench-backup"
_ACTIONS = 10_000
_HELD_UP_MS = 500
_BACK_WITHIN_S = 120


def backup(driver: Driver) -> Figures:
    """10,000 actions; a copy beside 20 signals a second; then the copy put back elsewhere."""
    driver.subscribe(_ACCOUNT)
    with Load(driver.settings, _ACCOUNT, per_s=0, clients=16, kinds=[("demo.succeed", {})]) as load:
        until(lambda: load.statuses()[202] >= _ACTIONS, 600)
    load.settled(300)
    until(lambda: not _waits(driver), 120)
    with tempfile.TemporaryDirectory(prefix="ggen-bench-copy-") as name:
        folder = Path(name)
        with Load(driver.settings, _ACCOUNT, per_s=20, clients=8) as beside:
            time.sleep(2)
            copied_s = _took(driver.settings, "backup", str(folder), "--keys", f"{name}/keys")
            time.sleep(2)
        copy = next(path for path in folder.iterdir() if path.is_dir())
        size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
        with tempfile.TemporaryDirectory(prefix="ggen-bench-back-") as state:
            other = _elsewhere(driver.settings, Path(state) / "state")
            restored_s = _took(other, "restore", str(copy), "--keys", f"{name}/keys")
            try:
                started_s = _took(other, "up", "--detach")
            finally:
                ggen(other, "down")
    slow_ms = p99([(a.answered_at - a.asked_at) * 1000 for a in beside.answers])
    return {
        "actions": load.statuses()[202],
        "copy_mib": round(size / 2**20, 1),
        "copied_s": round(copied_s, 2),
        "p99_beside_ms": round(slow_ms, 1),
        "gap_beside_ms": round(_gap_ms(beside), 1),
        "restored_s": round(restored_s, 2),
        "ready_s": round(started_s, 2),
        "bar": f"no gap > {_HELD_UP_MS} ms beside, at work within {_BACK_WITHIN_S} s",
        "met": _gap_ms(beside) <= _HELD_UP_MS and restored_s + started_s <= _BACK_WITHIN_S,
    }


def _gap_ms(load: Load) -> float:
    """The longest time in which no signal was answered."""
    answered = sorted(answer.answered_at for answer in load.answers)
    return max((after - before) * 1000 for before, after in pairwise(answered))


def _took(settings: Settings, *arguments: str) -> float:
    began = time.monotonic()
    ggen(settings, *arguments)
    return time.monotonic() - began


def _elsewhere(settings: Settings, state: Path) -> Settings:
    http, flower, valkey = free_ports(3)
    changes: dict[str, Any] = {"http_port": http, "flower_port": flower, "valkey_port": valkey}
    return settings.model_copy(update={"state_dir": state, **changes})


def _waits(driver: Driver) -> int:
    return sum(
        int(float(line.split()[-1]))
        for line in driver.http.get("/metrics").text.splitlines()
        if line.startswith("ggen_unsealed_ledgers ")
    )


MEASUREMENTS = {"backup": backup}
