"""Actions by command: listed, shown with their receipts, a failed rollback tried again."""

import json

import pytest

from tests.stack.conftest import Stack
from tests.support.waiting import until

pytestmark = pytest.mark.alone


def _send(stack: Stack, account: str, signal_id: str, kind: str, **payload: object) -> str:
    answer = stack.signal(account, {"signal_id": signal_id, "type": kind, "payload": payload})
    assert answer.status_code == 202, answer.text
    action_id: str = answer.json()["action_id"]
    return action_id


def _state(stack: Stack, account: str, action_id: str) -> str:
    return str(stack.read(f"/v1/tenants/{account}/actions/{action_id}")["state"])


def test_actions_are_listed_by_account_and_state_and_shown_with_their_receipts(
    stack: Stack,
) -> None:
    stack.subscribe("act-list")
    good = _send(stack, "act-list", "good", "demo.succeed")
    bad = _send(stack, "act-list", "bad", "demo.fail", recoverable=True)
    until(lambda: _state(stack, "act-list", good) == "complete")
    until(lambda: _state(stack, "act-list", bad) == "rolled_back")

    listed = stack.ggen("actions", "list", "--account-id", "act-list")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["action", bad, good]
    undone = stack.ggen("actions", "list", "--state", "rolled_back", "--json", "--limit", "1000")
    found = json.loads(undone.stdout)
    assert bad in {action["action_id"] for action in found}
    assert {action["state"] for action in found} == {"rolled_back"}
    shown = stack.ggen("actions", "show", bad, "--account-id", "act-list")
    assert "action_failed" in shown.stdout
    assert "DEMO_FAILURE" in shown.stdout
    as_json = stack.ggen("actions", "show", bad, "--account-id", "act-list", "--json")
    told = json.loads(as_json.stdout)["receipts"]
    assert [receipt["operation"] for receipt in told] == ["action_failed", "action_rolled_back"]


def test_a_failed_rollback_is_tried_again_at_once_on_request(stack: Stack) -> None:
    stack.subscribe("act-retry")
    action_id = _send(stack, "act-retry", "stuck", "demo.rollback_fails", times=5)
    until(  # by the third failure it rests for 4 s
        lambda: stack.read(f"/v1/tenants/act-retry/actions/{action_id}")["rollback_attempts"] >= 3
    )

    def retry() -> str:
        stack.ggen("actions", "retry-rollback", action_id, "--account-id", "act-retry")
        return _state(stack, "act-retry", action_id)

    until(lambda: retry() == "rolled_back", 20)  # by itself it would take another 12 s and more
    refused = stack.ggen("actions", "retry-rollback", action_id, "--account-id", "act-retry")
    assert refused.returncode == 4
    assert (
        "is rolled_back; only a rollback that failed can be tried again or resolved"
        in refused.stderr
    )


def test_what_is_not_there_is_told(stack: Stack) -> None:
    missing = stack.ggen("actions", "show", "action-none", "--account-id", "act-list")
    assert (missing.returncode, "act-list has no action action-none" in missing.stderr) == (2, True)
    nonsense = stack.ggen("actions", "list", "--state", "dancing")
    assert (nonsense.returncode, "rolled_back" in nonsense.stderr) == (2, True)
    retried = stack.ggen("actions", "retry-rollback", "a", "--account-id", "x/y")
    assert retried.returncode == 2


def test_no_action_is_ever_lost_sight_of(stack: Stack) -> None:
    with stack.http() as http:
        assert "ggen_orphaned_actions 0.0" in http.get("/metrics").text
