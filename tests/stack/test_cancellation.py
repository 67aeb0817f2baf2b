"""A customer cancels (Runbook 7), seen from outside, with everything that may be under way."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ingress.signature import sign
from tests.stack.conftest import Stack, created
from tests.support.waiting import until

VERIFY = Path(__file__).parents[2] / "ledger" / "auditor" / "verify.py"
UNDER_WAY = (
    [("demo.succeed", {})] * 20
    + [("demo.sleep", {"seconds": 60})] * 14
    + [("demo.fail", {"recoverable": True})] * 8
    + [("demo.rollback_fails", {"times": 2})] * 4
    + [("demo.spin", {})] * 4
)


def _told(account_id: str, name: str, **changes: Any) -> dict[str, Any]:
    event = {"event_type": f"entitlement.{name}", "event_id": f"{name}-of-{account_id}"}
    return created(account_id, **{**event, **changes})


def _ended(stack: Stack, answer: Any) -> dict[str, Any]:
    """The receipt of a cancellation, however long it takes."""
    if answer.status_code == 200:
        receipt: dict[str, Any] = answer.json()
        return receipt
    assert answer.status_code == 202, answer.text
    run = until(lambda: _if_ended(stack, answer.headers["location"]), 60)
    account_id = run["account_id"]
    found = stack.receipts(account_id, operation="decommission_complete")
    return next(receipt for receipt in found if receipt["receipt_id"] == run["receipt_id"])


def _if_ended(stack: Stack, path: str) -> dict[str, Any] | None:
    run: dict[str, Any] = stack.read(path)
    return run if run["receipt_id"] else None


def _archived(stack: Stack, receipt: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Copies of the archive and of its proof, far from the stack."""
    source = Path(receipt["archive_gcs_path"].removeprefix("file://"))
    beside = source.with_name(source.name.replace(".tar.gz", ".complete.json"))
    until(beside.exists)
    for each in (source, beside):
        (folder / each.name).write_bytes(each.read_bytes())
    return folder / source.name, folder / beside.name


def _is_shut(stack: Stack, account_id: str, ids: set[str]) -> bool:
    """Whether one more signal is refused; else its action is one of those under way."""
    signal = {"signal_id": f"more-{len(ids)}", "type": "demo.succeed"}
    answer = stack.signal(account_id, signal)
    if answer.status_code == 202:
        ids.add(answer.json()["action_id"])
    return answer.status_code == 503


def _done(stack: Stack, action_ids: set[str]) -> Counter[str]:
    """What the demo handlers noted themselves of some actions."""
    lines = stack.settings.demo_file.read_text().splitlines()
    noted = [json.loads(line) for line in lines]
    return Counter(each["event"] for each in noted if each["action_id"] in action_ids)


@pytest.mark.alone
def test_fifty_actions_under_way_end_before_their_customer_does(
    stack: Stack, tmp_path: Path
) -> None:
    account_id = "cancel-fifty"
    stack.subscribe(account_id, "enterprise")
    ids = set()
    with stack.client() as client:
        for number, (kind, payload) in enumerate(UNDER_WAY):
            signal = {"signal_id": f"s-{number}", "type": kind, "payload": payload}
            answer = client.post_signal(account_id, signal)
            assert answer.status_code == 202, answer.text
            ids.add(answer.json()["action_id"])
    began = time.monotonic()
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(stack.webhook(_told(account_id, "cancelled")))
    )
    thread.start()
    until(lambda: _is_shut(stack, account_id, ids), 5)
    shut_s = time.monotonic() - began
    thread.join()
    receipt = _ended(stack, answers[0])
    whole_s = time.monotonic() - began

    assert shut_s < 2
    assert whole_s < 40
    ledger = [r for r in _receipts(stack, account_id) if r.get("action_id") in ids]
    ends = Counter(r["operation"] for r in ledger)
    ended = sum(ends[f"action_{how}"] for how in ("complete", "failed", "timeout"))
    assert ended == len(ids)
    counted = [receipt[f"actions_{how}"] for how in ("completed", "failed", "timed_out")]
    assert sum(counted) == receipt["in_flight_actions"] <= receipt["actions_accepted"] == ended
    done = _done(stack, ids)
    assert done["rolled_back"] == ends["action_rolled_back"] > 0
    assert done["start"] <= ended
    answer = stack.signal(account_id, {"signal_id": "y", "type": "demo.succeed"})
    assert answer.json()["type"] == "urn:ggen:problem:unknown-tenant"
    assert not (stack.state / "secrets" / "tenants" / f"{account_id}.key").exists()

    archive, beside = _archived(stack, receipt, tmp_path)
    keys = json.loads(stack.ggen("keys", "list", "--json").stdout)
    trusted = [word for key in keys for word in ("--fingerprint", key["fingerprint"])]
    command = [sys.executable, "-I", "-S", VERIFY, *trusted, "--complete", beside, archive]
    verified = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "speaks of this archive" in verified.stdout


def _receipts(stack: Stack, account_id: str) -> list[dict[str, Any]]:
    exported = stack.ggen("export-receipts", "--account-id", account_id)
    found: list[dict[str, Any]] = json.loads(exported.stdout)
    return found


def test_a_customer_comes_goes_comes_back_and_is_forgotten(stack: Stack) -> None:
    account_id = "cancel-again"
    stack.subscribe(account_id)
    key = stack.secrets.tenant_key(account_id, 1)
    first = _ended(stack, stack.webhook(_told(account_id, "cancelled")))
    assert (first["governor"], first["in_flight_actions"]) == ("decommissioned", 0)
    again = stack.webhook(_told(account_id, "cancelled"))
    assert again.json()["receipt_id"] == first["receipt_id"]

    stack.webhook(created(account_id, event_id="again"))
    assert stack.read(f"/v1/tenants/{account_id}")["fsm_id"] == f"governor-{account_id}-g2"
    signal = {"signal_id": "s-1", "type": "demo.succeed"}
    body = json.dumps(signal).encode()
    headers = {"X-Signature": sign(body, key), "Content-Type": "application/json"}
    with stack.http() as http:
        former = http.post(f"/v1/tenants/{account_id}/signals", content=body, headers=headers)
    assert former.json()["type"] == "urn:ggen:problem:bad-signature"
    assert stack.signal(account_id, signal).status_code == 202

    active = stack.ggen("tenant", "purge", account_id, "--reason", "they asked")
    assert (active.returncode, "cancel it first" in active.stderr) == (3, True)
    answer = stack.webhook(_told(account_id, "cancelled", event_id="cancelled-again"))
    second = _ended(stack, answer)
    assert second["actions_accepted"] == 1
    shown = stack.ggen("tenant", "purge", account_id, "--reason", "they asked", "--dry-run")
    assert (shown.returncode, "nothing was removed" in shown.stdout) == (0, True), shown.stderr
    purged = stack.ggen("tenant", "purge", account_id, "--reason", "they asked")
    assert purged.returncode == 0, purged.stderr
    assert "purged, receipt" in purged.stdout
    verified = stack.ggen("verify-ledger", "--account-id", account_id)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    operations = [r["operation"] for r in _receipts(stack, account_id)]
    assert operations.count("decommission_complete") == 2
    assert operations[-1] == "tenant_purged"


def test_a_suspended_customer_is_refused_and_loses_nothing(stack: Stack) -> None:
    account_id = "cancel-suspended"
    stack.subscribe(account_id)
    signal = {"signal_id": "s-1", "type": "demo.succeed"}
    assert stack.webhook(_told(account_id, "suspended")).status_code == 200

    refused = stack.signal(account_id, signal)

    assert (refused.status_code, refused.json()["type"]) == (
        403,
        "urn:ggen:problem:entitlement-suspended",
    )
    assert stack.webhook(_told(account_id, "reinstated")).status_code == 200
    assert stack.signal(account_id, signal).status_code == 202


def test_a_cancellation_is_shown_beforehand(stack: Stack) -> None:
    account_id = "cancel-planned"
    stack.subscribe(account_id)

    planned = stack.ggen("plan", "customer_cancels", "--account-id", account_id)

    assert planned.returncode == 0, planned.stderr
    for told in (
        f"change tenants/{account_id}",
        f"remove tenants.{account_id}.signals",
        ".tar.gz",
        "decommission_complete",
    ):
        assert told in planned.stdout
    assert stack.read(f"/v1/tenants/{account_id}")["state"] == "stable"


def test_an_account_that_never_was_is_acknowledged(stack: Stack) -> None:
    answer = stack.webhook(_told("cancel-nobody", "cancelled"))

    assert answer.status_code == 200
    assert (answer.json()["operation"], answer.json()["reason"]) == (
        "event_ignored",
        "no-entitlement",
    )
