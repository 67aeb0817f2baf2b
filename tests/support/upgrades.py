"""Policies upgraded by a test: it takes the part of workers, reaper and clock."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from governor.policy import Policy
from governor.runs import Run
from ports import Ports
from ports.documents import Update
from tasks.governors import policies
from tasks.runbooks import upgrade_policy
from tasks.runbooks.upgrade.comparison import PolicyUpgrade
from tests.engine.conftest import event
from tests.support import cancel
from tests.support.runs import ACCOUNT, later, subscribe

PLAN = "demo-sku", "starter"
SYSTEM = "_system"
DOCUMENT = json.loads(Path("config/policies/demo-sku.starter.json").read_text())
Change = Callable[[dict[str, Any]], object]


def version(number: str, *changes: Change) -> bytes:
    """The sample policy under another number, with some changes."""
    made = json.loads(json.dumps(DOCUMENT)) | {"policy_version": number}
    for change in changes:
        change(made)
    return json.dumps(made).encode()


def subscribed(ports: Ports, *accounts: str) -> Ports:
    """Governors of the sample plan, under a clock that can be moved."""
    ports = later(ports)
    for account_id in accounts:
        subscribe(ports, event(account_id=account_id, event_id=f"e-{account_id}"))
    return ports


def begin(ports: Ports, text: bytes, signature: str = "", **asked: Any) -> Run:
    """An upgrade's run, before any worker has it."""
    return begin_registered(ports, policies.register(ports, text, signature).policy, **asked)


def begin_registered(ports: Ports, policy: Policy, **asked: Any) -> Run:
    """The same of a version that is registered."""
    named = {"sku_id": policy.sku_id, "plan_type": policy.plan_type}
    wish = PolicyUpgrade(policy_version=policy.policy_version, **named, **asked)
    began = upgrade_policy.ask(ports, wish)
    assert began
    return began


def upgrade(ports: Ports, text: bytes, **asked: Any) -> Run:
    """An upgrade to its end."""
    return cancel.to_the_end(ports, begin(ports, text, **asked).run_id)


def held(ports: Ports, account_id: str = ACCOUNT) -> str:
    """The version that a governor holds."""
    return str(stored(ports, account_id)["policy_version"])


def stored(ports: Ports, account_id: str = ACCOUNT) -> dict[str, Any]:
    """A governor's document."""
    found = ports.documents.get(f"tenants/{account_id}/entitlements/demo-sku")
    assert found
    return dict(found.data)


def change(ports: Ports, account_id: str = ACCOUNT, **fields: Any) -> None:
    """Change a governor's document, as another runbook would."""
    found = ports.documents.get(f"tenants/{account_id}/entitlements/demo-sku")
    assert found
    ports.documents.commit([Update(found.path, {**found.data, **fields}, found.revision)])


def receipts(ports: Ports, operation: str, account_id: str = ACCOUNT) -> list[dict[str, Any]]:
    """The receipts of a kind on one ledger, oldest first."""
    return cancel.of_kind(ports, operation, account_id)


def _bad() -> dict[str, bytes]:
    good = version("1.1.0")
    deep = json.loads("[" * 33 + "]" * 33)
    return {
        "nothing": b"",
        "not-json": b"\xff\xfe{\x00}\x00",
        "utf-16": good.decode().encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + good,
        "trailing": good + b"x",
        "key-twice": good.replace(b'"plan_type"', b'"sku_id": "x", "plan_type"', 1),
        "nan": good.replace(b"1000,", b"NaN,", 1),
        "pre-release": version("1.1.0-rc.1"),
        "unknown-field": version("1.1.0", lambda d: d.update(unknown=1)),
        "unknown-handler": version(
            "1.1.0", lambda d: d["actions"]["demo.spin"].update(handler="no.such")
        ),
        "lone-surrogate": version("1.1.0", lambda d: d.update(sku_id="\ud800")),
        "33-levels": version("1.1.0", lambda d: d.update(x=deep)),
        "500-actions-and-one": version(
            "1.1.0",
            lambda d: d["actions"].update(
                {f"demo.more-{n}": d["actions"]["demo.spin"] for n in range(501)}
            ),
        ),
        "too-large": good[:-1] + b" " * ((1 << 20) + 1 - len(good)) + good[-1:],
    }


BAD = _bad()
"""Documents that no door takes."""
