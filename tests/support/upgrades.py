"""Policies upgraded by a test: it takes the part of workers, reaper and clock."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def begin(ports: Ports, text: bytes, **asked: Any) -> Run:
    """An upgrade's run, before any worker has it."""
    policy = policies.register(ports, text).policy
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
