"""Customers that come, are served and go while keys rotate; repeated deliveries; new policies.

Every sender repeats what was refused or not answered, as the interface asks of it.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import httpx

from adapters.local.waiting import until
from bench.load import Load
from bench.stack import Driver, ggen
from governor.errors import GovernorError, OutageError
from governor.policy import Policy
from ports import Ports
from tasks.governors import policies

_SKU, _PLAN = "demo-sku", "professional"
_WITHIN_S = 120.0
_SIGNALS = 12
_ENDS = {
    "entitlement.created": {"entitlement_active", "entitlement_failed"},
    "entitlement.cancelled": {"decommission_complete"},
}


@dataclass
class Visits:
    """What was delivered, and what did not hold of it."""

    driver: Driver
    ports: Ports
    delivered: list[tuple[str, str]] = field(default_factory=list)
    policy_runs: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def come_and_go(self) -> None:
        """A subscription that is delivered three times at once, signals, and a cancellation.

        The keys are rotated while the last signals are under way.
        """
        account = f"chaos-visit-{next(self.numbers)}"
        event = self.driver.event(account, _PLAN) | {"event_id": f"came-{account}"}
        with ThreadPoolExecutor(3) as at_once:
            list(at_once.map(self._deliver, [event] * 3))
        if not self._is_active(account):
            return
        for number in range(_SIGNALS):
            signal = {"signal_id": f"{number}", "type": "demo.sleep", "payload": {"seconds": 0.3}}
            self._sent(partial(self.driver.post_signal, account, signal))
        gone = {"event_id": f"went-{account}", "event_type": "entitlement.cancelled"}
        self._deliver(event | gone)
        ggen(self.driver.settings, "keys", "rotate")

    def again(self, load: Load) -> None:
        """Deliver signals that were accepted again, in another order: each is the same action."""
        accepted = [each for each in load.answers if each.status == 202][-30:]
        random.shuffle(accepted)
        for each in accepted:
            answer = self._sent(partial(self.driver.post_signal, load.account_id, each.signal))
            told = answer.json().get("action_id")
            if told != each.action_id:
                self.faults.append(f"{each.signal['signal_id']} became {told}, too")

    def upgrade(self) -> None:
        """Bring a new version of the policy that all are under."""
        (found,) = until(self._in_force, _WITHIN_S)
        major, minor, _ = found.policy_version.split(".")
        version = f"{major}.{int(minor) + next(self.numbers)}.0"
        changed = _changed(found, version)
        answer = self._sent(lambda: self.driver.post_policy(changed))
        self.policy_runs.append(answer.json()["run_id"])

    def _in_force(self) -> list[Policy]:
        try:
            return [policies.in_force(self.ports, _SKU, _PLAN)]
        except OutageError:
            return []

    def compare(self) -> list[str]:
        """What does not hold in the end: each event and each version has ended, once."""
        for account, event_type in self.delivered:
            until(partial(self._ends, account, event_type), _WITHIN_S)
            ends = self._ends(account, event_type)
            if len(ends) != 1:
                self.faults.append(f"{event_type} of {account} ended as {ends}")
        for run_id in self.policy_runs:
            until(partial(self._has_receipt, run_id), 600)
        return self.faults

    def _has_receipt(self, run_id: str) -> bool:
        try:
            return bool(self.driver.read(f"/v1/runs/{run_id}")["receipt_id"])
        except OutageError:
            return False

    def _deliver(self, event: dict[str, str]) -> None:
        self._sent(lambda: self.driver.post_webhook(event))
        of = event["account_id"], event["event_type"]
        if of not in self.delivered:
            self.delivered.append(of)

    def _is_active(self, account: str) -> bool:
        (end,) = until(lambda: self._ends(account, "entitlement.created"), _WITHIN_S)
        return end == "entitlement_active"

    def _ends(self, account: str, event_type: str) -> list[str]:
        try:
            receipts = self.driver.receipts(account, limit=1000)
        except GovernorError:
            return []
        told = Counter(each["operation"] for each in receipts)
        return [op for op in sorted(_ENDS[event_type]) for _ in range(told[op])]

    def _sent(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        give_up_at = time.monotonic() + _WITHIN_S
        while True:
            try:
                answer = send()
            except OutageError:  # no answer came
                answer = httpx.Response(503)
            if answer.status_code < 300:
                return answer
            if answer.status_code not in (429, 503) or time.monotonic() > give_up_at:
                raise RuntimeError(f"{answer.status_code} {answer.text}")
            time.sleep(0.2)


def _changed(found: Policy, version: str) -> dict[str, Any]:
    left_out = {"rolls_back"}  # of one that was a way back: the next version is none
    changed: dict[str, Any] = found.model_dump(mode="json", exclude_none=True, exclude=left_out)
    return changed | {"policy_version": version}
