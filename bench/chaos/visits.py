"""Customers that come, are served and go while keys rotate; repeated deliveries; new policies.

Every sender repeats what was refused or not answered, as the interface asks of it.
"""

import json
import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import httpx

from adapters.local.waiting import until
from bench.load import Load
from bench.stack import Driver, ggen
from governor.errors import ConflictError, GovernorError, InputError, OutageError
from governor.policy import Policy
from ports import Ports
from tasks.governors import policies

_SKU, _PLAN, _SMALL = "demo-sku", "professional", "chaos-small"
_MONTH = 8
"""Actions a month in the small plan."""

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
    exhausted: list[str] = field(default_factory=list)
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
        ggen(self.driver.settings, "keys", "rotate", within_s=30)

    def exhaust(self) -> None:
        """A customer who uses up the month, and whose budget allows no higher limit."""
        account = f"chaos-small-{next(self.numbers)}"
        until(self._has_small_policy, _WITHIN_S)
        self._deliver(self.driver.event(account, _PLAN, _SMALL) | {"event_id": f"came-{account}"})
        if not self._is_active(account):
            return
        until(partial(self._is_refused, account, "monthly_budget_usd"), _WITHIN_S)
        statuses = Counter[int]()
        for number in range(2 * _MONTH):
            signal = {"signal_id": f"{number}", "type": "demo.succeed", "payload": {}}
            send = partial(self.driver.post_signal, account, signal)
            statuses[self._sent(send, but="quota-exceeded").status_code] += 1
        if not 0 < statuses[202] <= _MONTH or statuses[429] != 2 * _MONTH - statuses[202]:
            self.faults.append(f"{account} may {_MONTH} a month, and was answered {statuses}")
        until(partial(self._is_refused, account, "monthly_actions"), _WITHIN_S)
        self.exhausted.append(account)

    def _is_refused(self, account: str, limit: str) -> bool:
        """Ask for a higher limit; whether a receipt says that this is what does not allow it."""
        ggen(self.driver.settings, "scale", account, "--concurrency", "30", may_be_refused=True)
        return any(each.get("limit") == limit for each in self._receipts(account))

    def _has_small_policy(self) -> bool:
        """A plan of few actions a month, in whose budget no place more has room."""
        found = self._in_force()
        if not found:
            return False
        prices = {"concurrent_action_month_usd": 100_000}
        less = {"monthly_actions": _MONTH, "monthly_budget_usd": 1, "prices": prices}
        small = found[0].model_dump(mode="json", exclude_none=True, exclude={"rolls_back"})
        small |= {"sku_id": _SMALL, "policy_version": "1.0.0", "quota": small["quota"] | less}
        with suppress(OutageError, ConflictError):  # it was registered before, from a later version
            policies.register(self.ports, json.dumps(small).encode())
        return self._in_force(_SMALL) != []

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

    def _in_force(self, sku_id: str = _SKU) -> list[Policy]:
        try:
            return [policies.in_force(self.ports, sku_id, _PLAN)]
        except (OutageError, InputError):
            return []

    def compare(self) -> list[str]:
        """What does not hold in the end: each event and each version has ended, once."""
        for account, event_type in self.delivered:
            until(partial(self._ends, account, event_type), _WITHIN_S)
            ends = self._ends(account, event_type)
            if len(ends) != 1:
                self.faults.append(f"{event_type} of {account} ended as {ends}")
        for account in self.exhausted:
            told = self.driver.receipts(account, limit=1000)
            if any(each["operation"] == "governor_scaled" for each in told):
                self.faults.append(f"{account} was scaled beyond its month and budget")
        for run_id in self.policy_runs:
            until(partial(self._has_receipt, run_id), 600)
        return self.faults

    def _receipts(self, account: str) -> list[dict[str, Any]]:
        try:
            return self.driver.receipts(account, limit=1000)
        except GovernorError:
            return []

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
        told = Counter(each["operation"] for each in self._receipts(account))
        return [op for op in sorted(_ENDS[event_type]) for _ in range(told[op])]

    def _sent(self, send: Callable[[], httpx.Response], but: str = "") -> httpx.Response:
        """The answer, once it is not to be repeated; ``but``: the code of a final refusal."""
        give_up_at = time.monotonic() + _WITHIN_S
        while True:
            try:
                answer = send()
            except OutageError:  # no answer came
                answer = httpx.Response(503)
            if answer.status_code < 300 or (but and but in answer.text):
                return answer
            if answer.status_code not in (429, 503) or time.monotonic() > give_up_at:
                raise RuntimeError(f"{answer.status_code} {answer.text}")
            time.sleep(0.2)


def _changed(found: Policy, version: str) -> dict[str, Any]:
    left_out = {"rolls_back"}  # of one that was a way back: the next version is none
    changed: dict[str, Any] = found.model_dump(mode="json", exclude_none=True, exclude=left_out)
    return changed | {"policy_version": version}
