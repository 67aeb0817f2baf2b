"""A thousand signals at once against twenty at once and a hundred a month."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from adapters.local.sqlite import SqliteDocuments
from bench.chaos.kills import wipe
from governor.actions import UNDER_WAY
from ingress.signature import sign
from ports.documents import Query, Where
from tests.stack.conftest import Stack, created
from tests.support.waiting import until

pytestmark = pytest.mark.alone

SKU, KIND = "quota-sku", "demo.sleep"
ASKED, AT_ONCE, A_MONTH = 1_000, 20, 100
TAKES_S = 0.2  # eight at once: fewer end in a second than are asked for, so that twenty are reached


@pytest.mark.parametrize("account", ["quotas", "quotas-wiped"])
def test_neither_limit_is_ever_exceeded_and_exactly_the_month_is_accepted(
    stack: Stack, tmp_path: Path, account: str
) -> None:
    is_wiped = account == "quotas-wiped"
    _subscribe(stack, account, tmp_path)
    in_flight: list[int] = []
    over = threading.Event()

    def watch() -> None:
        with closing(SqliteDocuments(stack.state / "documents.db")) as documents:
            is_under_way = Where("state", "in", UNDER_WAY)
            at_one_moment = Query("actions", group=True, where=[is_under_way], limit=500)
            while not over.is_set():
                found = documents.scan(at_one_moment)  # a second page would be of another moment
                assert len(found) < at_one_moment.at_most
                in_flight.append(sum(each.data["account_id"] == account for each in found))

    with ExitStack() as ending:
        watching = threading.Thread(target=watch)
        watching.start()
        ending.callback(watching.join)
        ending.callback(over.set)
        asking = _Asking(stack, account, lambda: is_wiped and wipe(stack.settings))
        asyncio.run(asking.until_the_month_is_over())
        until(lambda: stack.read(f"/v1/tenants/{account}")["in_flight_actions"] == 0)

    # After a loss, what was just being stored may be counted twice: too early, never too late.
    accepted = len(asking.accepted)
    assert A_MONTH - (AT_ONCE if is_wiped else 0) <= accepted <= A_MONTH
    others = asking.refused.keys() - {"no-lease", "busy"}  # a thousand at once
    assert others == {"concurrency-exceeded", "quota-exceeded"}
    assert 1 < max(in_flight) <= AT_ONCE
    until(lambda: len(stack.receipts(account, operation="action_complete", limit=1000)) == accepted)
    (entitlement,) = stack.read(f"/v1/tenants/{account}")["entitlements"]
    assert entitlement["actions_this_month"] == A_MONTH

    def told() -> Counter[str]:
        counts: Counter[str] = Counter()
        for receipt in stack.receipts(account, operation="signals_refused", limit=1000):
            counts.update(receipt["by_reason"])
        return counts

    # Each refusal is receipted, in aggregate; what was counted and not yet receipted goes with
    # Memory.
    until(lambda: told() == asking.refused or (is_wiped and told() <= asking.refused))


def _subscribe(stack: Stack, account: str, folder: Path) -> None:
    policy = {
        "sku_id": SKU,
        "plan_type": "starter",
        "policy_version": "1.0.0",
        "quota": {"monthly_actions": A_MONTH, "concurrent_actions": AT_ONCE},
        "actions": {"wait": {"handler": KIND}},
        "signals": {KIND: "wait"},
        "permissions": ["wait"],
    }
    file = folder / "policy.json"
    file.write_text(json.dumps(policy))
    published = stack.ggen("publish-policy", str(file))
    assert published.returncode == 0, published.stderr
    answer = stack.webhook(created(account, sku_id=SKU, plan_type="starter"))
    assert answer.status_code == 200, answer.text


class _Asking:
    """All signals at once, then again by hundreds whatever was refused for the moment."""

    def __init__(self, stack: Stack, account: str, meanwhile: Callable[[], object]) -> None:
        self._stack, self._account, self._meanwhile = stack, account, meanwhile
        self._key = (stack.state / "secrets" / "tenants" / f"{account}.key").read_text().strip()
        self.accepted: set[str] = set()
        self.refused: Counter[str] = Counter()

    async def until_the_month_is_over(self) -> None:
        limits = httpx.Limits(max_connections=ASKED)
        base_url = f"http://127.0.0.1:{self._stack.http_port}"
        asked, waiting = [f"q{n}" for n in range(ASKED)], []
        async with httpx.AsyncClient(
            base_url=base_url, limits=limits, timeout=60, trust_env=False
        ) as http:
            while True:
                for_now = self._for_now()
                answers = await asyncio.gather(*(self._ask(http, each) for each in asked))
                waiting += [signal_id for signal_id in answers if signal_id]
                if self._for_now() == for_now:
                    return
                asked, waiting = waiting[:A_MONTH], waiting[A_MONTH:]

    def _for_now(self) -> int:
        return sum(self.refused[each] for each in ("concurrency-exceeded", "no-lease", "busy"))

    async def _ask(self, http: httpx.AsyncClient, signal_id: str) -> str | None:
        body = json.dumps(
            {"signal_id": signal_id, "type": KIND, "payload": {"seconds": TAKES_S}}
        ).encode()
        answer = await http.post(
            f"/v1/tenants/{self._account}/signals",
            content=body,
            headers={"X-Signature": sign(body, self._key)},
        )
        if answer.status_code == 202:
            self.accepted.add(answer.json()["action_id"])
            if len(self.accepted) == A_MONTH // 5:
                self._meanwhile()
            return None
        assert answer.status_code in (429, 503), answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        self.refused[answer.json()["type"].rpartition(":")[2]] += 1
        return signal_id
