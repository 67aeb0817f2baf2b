"""Runs by command and over HTTP: planned, listed, shown, cancelled, resumed."""

import json
import threading

from governor import paths
from tests.stack.conftest import Stack, created, held
from tests.support.waiting import until


def _json(stack: Stack, *arguments: str) -> object:
    done = stack.ggen(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_plan_tells_each_step_with_its_undo_and_touches_nothing(stack: Stack) -> None:
    before = _json(stack, "runs", "list", "--account-id", "run-plan")

    planned = stack.ggen("plan", "entitlement_lifecycle", "--account-id", "run-plan")

    assert planned.returncode == 0, planned.stderr
    for told in (
        "1. entitlement_lifecycle.policy",
        "create tenants/run-plan",
        "create tenants.run-plan.signals",
        "undo   delete subscription and topic",
        "nothing was touched",
    ):
        assert told in planned.stdout
    assert _json(stack, "runs", "list", "--account-id", "run-plan") == before == []
    refused = stack.ggen("plan", "deploy-sku", "--account-id", "run-plan", "--sku-id", "nope")
    assert refused.returncode == 2
    assert "refused by entitlement_lifecycle.policy: no policy is registered" in refused.stdout


def test_a_plan_of_nonsense_says_what_is_wrong(stack: Stack) -> None:
    unknown = stack.ggen("plan", "nothing", "--account-id", "a")
    assert (unknown.returncode, "entitlement_lifecycle" in unknown.stderr) == (2, True)
    bad = stack.ggen("plan", "entitlement_lifecycle", "--account-id", "a/b")
    assert (bad.returncode, "account_id" in bad.stderr) == (2, True)
    other = stack.ggen(
        "plan",
        "entitlement_lifecycle",
        "--account-id",
        "a",
        "--event-type",
        "entitlement.cancelled",
    )
    assert (other.returncode, "customer_cancels" in other.stderr) == (2, True)


def test_a_run_is_listed_and_shown_with_its_journal(stack: Stack) -> None:
    receipt = stack.subscribe("run-shown")
    run_id = receipt["run_id"]

    listed = stack.ggen("runs", "list", "--account-id", "run-shown")
    assert run_id in listed.stdout
    assert "complete" in listed.stdout
    shown = stack.ggen("runs", "show", run_id)
    assert "created tenants/run-shown" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert f"receipt {receipt['receipt_id']}" in shown.stdout
    over_http = stack.read(f"/v1/runs/{run_id}")
    assert over_http == _json(stack, "runs", "show", run_id)
    assert [entry["state"] for entry in over_http["journal"].values()] == ["done"] * 5
    assert "body" not in over_http


def test_what_cannot_be_done_to_a_run_is_said(stack: Stack) -> None:
    run_id = stack.subscribe("run-ended")["run_id"]

    for command in (("resume", run_id), ("cancel", run_id, "--reason", "x")):
        refused = stack.ggen("runs", *command)
        assert (refused.returncode, "ended complete" in refused.stderr) == (4, True)
    for command in (("show", "run-x"), ("resume", "run-x"), ("cancel", "run-x", "--reason", "x")):
        unknown = stack.ggen("runs", *command)
        assert (unknown.returncode, "there is no run run-x" in unknown.stderr) == (2, True)


def test_a_cancelled_run_is_undone_receipted_and_answered(stack: Stack) -> None:
    run_id = paths.run_id("event-of-run-cancelled")
    statuses: list[int] = []
    with held(stack):
        poster = threading.Thread(
            target=lambda: statuses.append(stack.webhook(created("run-cancelled")).status_code)
        )
        poster.start()
        until(lambda: run_id in stack.ggen("runs", "list", "--open").stdout)
        cancelled = stack.ggen(
            "runs", "cancel", run_id, "--reason", "wrong customer", "--operator", "alice"
        )
        assert cancelled.returncode == 0, cancelled.stderr
    until(lambda: stack.read(f"/v1/runs/{run_id}")["state"] == "cancelled")
    poster.join()

    assert statuses[0] in (202, 422)
    assert stack.webhook(created("run-cancelled")).status_code == 422
    told = {r["operation"]: r for r in stack.receipts("run-cancelled")}
    assert set(told) == {"entitlement_failed", "run_cancelled"}
    assert told["run_cancelled"]["operator"] == "alice"
    shown = stack.ggen("runs", "show", run_id).stdout
    assert "cancelled by alice" in shown


def test_a_failed_run_is_resumed_by_an_operator_once_its_cause_is_mended(stack: Stack) -> None:
    """A topic's place is taken by something else; the operator removes it."""
    import redis

    with redis.Redis(
        port=stack.valkey_port, db=2, password=stack.secrets.read("valkey.password")
    ) as signals:
        signals.set("ggen:stream:tenants.run-mended.signals", "somebody's")
        refused = stack.webhook(created("run-mended"))
        assert refused.status_code == 503
        assert "no topic of ours" in refused.json()["detail"]
        run_id = refused.json()["receipt"]["run_id"]
        signals.delete("ggen:stream:tenants.run-mended.signals")

    resumed = stack.ggen("runs", "resume", run_id)

    assert resumed.returncode == 0, resumed.stderr
    until(lambda: stack.read(f"/v1/runs/{run_id}")["state"] == "complete")
    assert stack.read(f"/v1/runs/{run_id}")["attempt"] == 2


def test_the_manuals_are_rendered_by_command(stack: Stack, tmp_path: object) -> None:
    rendered = stack.ggen("docs", "--output", str(tmp_path))
    assert "deploy-sku.md" in rendered.stdout
    assert stack.ggen("docs", "--output", str(tmp_path), "--check").returncode == 0
