"""How soon a system with many actions of this month is at work again after Memory was lost."""

import time
from collections.abc import Callable
from typing import Any

from adapters.local.waiting import until
from adapters.wiring import open_ports
from bench.chaos.kills import wipe
from bench.figures import Figures
from bench.stack import Driver
from governor.paths import action_path
from ports import Ports
from ports.documents import Create, Where, every

_ACCOUNT = "bench-rebuild"
_ACTIONS, _TOGETHER = 100_000, 200
_WITHIN_S = 300


def rebuild(driver: Driver) -> Figures:
    """Of an account with few actions and then with 100,000: from the loss to the next 202."""
    driver.subscribe(_ACCOUNT)
    driver.wait_action(driver.signal(_ACCOUNT, "demo.succeed", {}))
    ports = open_ports(driver.settings)
    few_s = _back_after_s(driver)
    _multiply(ports)
    ports.documents.close()
    many_s = _back_after_s(driver)
    return {
        "actions": _ACTIONS,
        "few_s": round(few_s, 2),
        "many_s": round(many_s, 2),
        "bar": "many actions cost less than a second more than few",
        "met": many_s < few_s + 1,
    }


def _back_after_s(driver: Driver) -> float:
    asked = {"type": "demo.succeed", "payload": {}}
    wipe(driver.settings)
    began_s = time.monotonic()

    def is_accepted() -> bool:
        signal = asked | {"signal_id": f"after-{time.monotonic_ns()}"}
        return driver.post_signal(_ACCOUNT, signal).status_code == 202

    until(is_accepted, _WITHIN_S)
    return time.monotonic() - began_s


def _multiply(ports: Ports) -> None:
    """Store an ended action again and again, under other ids."""
    ended = Where("state", "==", "complete")
    found = next(every(ports.documents, f"tenants/{_ACCOUNT}/actions", ended))
    for first in range(0, _ACTIONS, _TOGETHER):
        ids = [f"action-{n:040x}" for n in range(first, first + _TOGETHER)]
        copies: list[tuple[str, dict[str, Any]]] = [
            (each, {**found.data, "action_id": each, "signal_id": each}) for each in ids
        ]
        ports.documents.commit_each([[Create(action_path(_ACCOUNT, i), c)] for i, c in copies])


ON_REQUEST: dict[str, Callable[[Driver], Figures]] = {"rebuild": rebuild}
