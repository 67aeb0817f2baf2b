"""Runs: journalled, undone, taken in turn, whatever write is lost."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from governor import records
from governor.errors import ConflictError, InputError, OutageError
from governor.fsm import RunState
from governor.records import MarketplaceEvent, Run
from ledger.receipt import SignedReceipt
from ports import Ports
from tasks import compensate, runbook, step
from tasks.entitlement_lifecycle import RUNBOOK, begin
from tests.engine.conftest import event
from tests.faults import Fault

COMMITS_OF_A_RUN = 11


def _play(ports: Ports, run_id: str) -> Run:
    """What a worker does when Celery hands it a chain."""
    for each in RUNBOOK.steps:
        step.run_step(ports, RUNBOOK, each.name, run_id)
    return _run(ports, run_id)


def _run(ports: Ports, run_id: str) -> Run:
    found = ports.documents.get(records.run_path(run_id))
    assert found
    return Run.model_validate(found.data)


def _subscribe(ports: Ports, of: MarketplaceEvent, body: bytes = b"{}") -> Run:
    return _play(ports, begin(ports, of, body).run_id)


def _receipts(ports: Ports, account_id: str = "acme") -> list[dict[str, Any]]:
    found = ports.documents.scan(f"tenants/{account_id}/receipts", order_by="timestamp")
    return [SignedReceipt.model_validate(d.data).fields() for d in found]


def _operations(ports: Ports) -> list[str]:
    return [r["operation"] for r in _receipts(ports)]


def _nothing_is_left(ports: Ports, account_id: str = "acme") -> bool:
    return (
        ports.documents.get(records.tenant_path(account_id)) is None
        and not ports.documents.scan(f"tenants/{account_id}/entitlements")
        and not ports.signals.exists(account_id)
        and ports.documents.get(records.turn_path(account_id)) is None
    )


def test_a_subscription_ends_with_everything_and_one_receipt(ports: Ports) -> None:
    run = _subscribe(ports, event())

    (proof,) = _receipts(ports)
    assert run.state is RunState.COMPLETE
    assert run.receipt_id == proof["receipt_id"]
    assert proof["resources"] == {
        "fsm_id": "governor-acme", "pubsub_topic": "tenants.acme.signals",
        "firestore_path": "/tenants/acme",
    }  # fmt: skip
    assert proof["quota"] == {"monthly_actions": 1000, "concurrent_actions": 5}
    assert ports.signals.exists("acme")
    assert ports.documents.get(records.turn_path("acme")) is None


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("failing", range(1, COMMITS_OF_A_RUN + 1))
def test_whichever_write_fails_once_there_is_one_governor_and_one_receipt(
    ports: Ports, faulty: Callable[[Fault, set[int]], Ports], fault: Fault, failing: int
) -> None:
    broken = faulty(fault, {failing})

    run = _subscribe(broken, event())

    assert run.state is RunState.COMPLETE
    assert _operations(ports) == ["entitlement_active"]
    assert broken.documents.commits >= COMMITS_OF_A_RUN  # type: ignore[attr-defined]


def test_a_run_makes_as_many_commits_as_are_broken_above(
    faulty: Callable[[Fault, set[int]], Ports],
) -> None:
    counting = faulty("lost", set())

    _subscribe(counting, event())

    assert counting.documents.commits == COMMITS_OF_A_RUN  # type: ignore[attr-defined]


@pytest.mark.parametrize("step_name", [s.name for s in RUNBOOK.steps])
def test_a_step_that_fails_for_now_undoes_all_before_it_and_may_be_tried_again(
    ports: Ports, monkeypatch: pytest.MonkeyPatch, step_name: str
) -> None:
    def down(_ports: Ports, _run: Run) -> runbook.Result:
        raise OutageError("down", "a dependency is down")

    failing = dataclasses.replace(
        RUNBOOK,
        steps=tuple(
            dataclasses.replace(s, act=down) if s.name == step_name else s for s in RUNBOOK.steps
        ),
    )
    run = begin(ports, event(), b"{}")
    for each in failing.steps:
        step.run_step(ports, failing, each.name, run.run_id)

    assert _run(ports, run.run_id).state is RunState.FAILED
    assert _nothing_is_left(ports)
    (proof,) = _receipts(ports)
    assert (proof["operation"], proof["failed_step"], proof["retryable"]) == (
        "entitlement_failed", step_name, True,
    )  # fmt: skip

    again = begin(ports, event(), b"{}")
    assert again.attempt == 2
    assert _play(ports, again.run_id).state is RunState.COMPLETE
    assert _operations(ports) == ["entitlement_failed", "entitlement_active"]


def test_an_unknown_sku_is_refused_for_good(ports: Ports) -> None:
    run = _subscribe(ports, event(sku_id="nope"))

    assert run.state is RunState.REFUSED
    assert _nothing_is_left(ports)
    again = begin(ports, event(sku_id="nope"), b"{}")
    assert again == run


def test_a_failed_second_entitlement_leaves_the_first_as_it_was(ports: Ports) -> None:
    _subscribe(ports, event())
    before = ports.documents.get(records.tenant_path("acme"))

    _subscribe(ports, event(event_id="e-2", sku_id="nope"))

    assert ports.documents.get(records.tenant_path("acme")) == before
    assert ports.signals.exists("acme")


def test_one_event_id_is_one_run_and_another_body_is_refused(ports: Ports) -> None:
    first = _subscribe(ports, event())

    assert begin(ports, event(), b"{}") == first
    with pytest.raises(ConflictError) as refused:
        begin(ports, event(), b"{ }")
    assert refused.value.code == "event-id-reused"
    assert _operations(ports) == ["entitlement_active"]


def test_a_replayed_message_changes_nothing(ports: Ports) -> None:
    run = _subscribe(ports, event())

    assert _play(ports, run.run_id) == run
    assert _operations(ports) == ["entitlement_active"]


def test_runs_of_one_account_take_turns(ports: Ports) -> None:
    first = begin(ports, event(), b"1")
    second = begin(ports, event(event_id="e-2", plan_type="professional"), b"2")
    step.run_step(ports, RUNBOOK, RUNBOOK.steps[0].name, first.run_id)

    step.run_step(ports, RUNBOOK, RUNBOOK.steps[0].name, second.run_id)
    assert _run(ports, second.run_id).state is RunState.PENDING  # it waits
    step.run_step(ports, RUNBOOK, RUNBOOK.steps[1].name, second.run_id)  # its chain goes on
    assert _run(ports, second.run_id).journal == {}

    assert _play(ports, first.run_id).state is RunState.COMPLETE
    assert _play(ports, second.run_id).state is RunState.COMPLETE
    assert _operations(ports) == ["entitlement_active", "entitlement_active"]


def test_a_plan_change_keeps_the_governor_and_changes_its_terms(ports: Ports) -> None:
    _subscribe(ports, event())

    _subscribe(
        ports, event(event_id="e-2", event_type="entitlement.plan_changed", plan_type="professional",
                     event_time="2026-11-23T12:00:01.000000Z")
    )  # fmt: skip

    changed = _receipts(ports)[-1]
    assert changed["operation"] == "entitlement_plan_changed"
    assert (changed["previous_plan_type"], changed["plan_type"]) == ("starter", "professional")
    assert changed["quota"]["concurrent_actions"] == 20


def test_a_plan_change_of_nothing_is_refused(ports: Ports) -> None:
    run = _subscribe(ports, event(event_type="entitlement.plan_changed"))

    assert run.state is RunState.REFUSED
    assert run.error_code == "no-entitlement"
    assert _nothing_is_left(ports)


def test_an_event_older_than_what_is_in_force_changes_nothing(ports: Ports) -> None:
    first = _subscribe(ports, event())

    late = _subscribe(
        ports,
        event(event_id="e-0", plan_type="enterprise", event_time="2026-11-23T11:59:59.000000Z"),
    )

    assert late.state is RunState.COMPLETE
    assert late.receipt_id == first.receipt_id
    assert _operations(ports) == ["entitlement_active"]


def test_two_entitlements_live_side_by_side(ports: Ports) -> None:
    from tasks import policies

    other = (ports.objects.get("policies/demo-sku/starter/1.0.0.json") or b"").replace(
        b'"demo-sku"', b'"other-sku"'
    )
    policies.publish(ports, other)
    _subscribe(ports, event())
    _subscribe(ports, event(event_id="e-2", sku_id="other-sku"))

    assert [r["sku_id"] for r in _receipts(ports)] == ["demo-sku", "other-sku"]
    assert len(ports.documents.scan("tenants/acme/entitlements")) == 2


def test_a_run_past_its_deadline_is_undone(ports: Ports) -> None:
    run = begin(ports, event(), b"{}")
    step.run_step(ports, RUNBOOK, RUNBOOK.steps[0].name, run.run_id)
    step.run_step(ports, RUNBOOK, RUNBOOK.steps[1].name, run.run_id)
    found = ports.documents.get(records.run_path(run.run_id))
    assert found
    from ports.documents import Update

    past = Run.model_validate(found.data).evolve(deadline_at="2020-01-01T00:00:00.000000Z")
    ports.documents.commit([Update(found.path, past.document(), found.revision)])

    ended = _play(ports, run.run_id)

    assert (ended.state, ended.error_code) == (RunState.FAILED, "run-deadline")
    assert _nothing_is_left(ports)


def test_an_event_this_version_does_not_serve_is_refused_at_the_door(ports: Ports) -> None:
    with pytest.raises(InputError, match="not served"):
        begin(ports, event(event_type="entitlement.cancelled"), b"{}")

    assert ports.documents.scan("runs") == []


def test_a_registered_policy_version_never_changes(ports: Ports) -> None:
    from tasks import policies

    changed = (ports.objects.get("policies/demo-sku/starter/1.0.0.json") or b"").replace(
        b"1000", b"9"
    )

    with pytest.raises(ConflictError):
        policies.publish(ports, changed)


def _until_governor(ports: Ports, of: MarketplaceEvent) -> Run:
    """A run with everything done but its last step."""
    run = begin(ports, of, b"{}")
    for each in RUNBOOK.steps[:-1]:
        step.run_step(ports, RUNBOOK, each.name, run.run_id)
    return _run(ports, run.run_id)


def _failing_last_step(error: Exception) -> runbook.Runbook:
    def down(_ports: Ports, _run: Run) -> runbook.Result:
        raise error

    last = dataclasses.replace(RUNBOOK.steps[-1], act=down)
    return dataclasses.replace(RUNBOOK, steps=(*RUNBOOK.steps[:-1], last))


def test_no_signal_is_accepted_before_the_receipt_is_committed(ports: Ports) -> None:
    from tasks.submit_signal import Signal, submit

    asked = Signal("acme", "s", "demo.succeed", None, {})
    run = _until_governor(ports, event())
    with pytest.raises(OutageError):
        submit(ports, asked)

    _play(ports, run.run_id)

    assert submit(ports, asked)


def test_a_governor_memory_forgot_is_told_to_it_again_by_its_first_signal(ports: Ports) -> None:
    from tasks.submit_signal import Signal, submit

    _subscribe(ports, event())
    ports.memory.forget("acme")

    assert submit(ports, Signal("acme", "s", "demo.succeed", None, {}))


def test_a_second_entitlement_that_fails_never_shuts_the_door_of_the_first(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import policies
    from tasks.submit_signal import Signal, submit

    other = (ports.objects.get("policies/demo-sku/starter/1.0.0.json") or b"").replace(
        b'"demo-sku"', b'"other-sku"'
    )
    policies.publish(ports, other)
    _subscribe(ports, event())
    second = _until_governor(ports, event(event_id="e-2", sku_id="other-sku"))
    failing = _failing_last_step(OutageError("down", "a dependency is down"))

    assert submit(ports, Signal("acme", "s1", "demo.succeed", None, {}))
    step.run_step(ports, failing, RUNBOOK.steps[-1].name, second.run_id)

    assert _run(ports, second.run_id).state is RunState.FAILED
    assert submit(ports, Signal("acme", "s2", "demo.succeed", None, {}))
    assert len(ports.documents.scan("tenants/acme/entitlements")) == 1


def test_an_undo_under_way_elsewhere_is_left_to_it_until_it_dies(ports: Ports) -> None:
    import subprocess

    import psutil

    from governor.records import JournalEntry, ProcessClaim, timestamp

    other = subprocess.Popen(["sleep", "600"])
    claim = ProcessClaim(
        host=ports.processes.claim(ports.clock.now()).host, pid=other.pid,
        process_started=psutil.Process(other.pid).create_time(),
        claimed_at=timestamp(ports.clock.now()),
    )  # fmt: skip
    run = _until_governor(ports, event())
    from ports.documents import Update

    found = ports.documents.get(records.run_path(run.run_id))
    assert found
    entry: JournalEntry = run.journal["deploy_sku.governor"].evolve(undo_claim=claim)
    undoing = run.evolve(
        state=RunState.COMPENSATING, error_code="x", error_detail="x", retryable=True,
        failed_step="deploy_sku.governor", journal={**run.journal, "deploy_sku.governor": entry},
    )  # fmt: skip
    ports.documents.commit([Update(found.path, undoing.document(), found.revision)])

    compensate.compensate(ports, RUNBOOK, run.run_id)
    assert _run(ports, run.run_id).state is RunState.COMPENSATING
    other.kill()
    other.wait()
    compensate.compensate(ports, RUNBOOK, run.run_id)

    assert _run(ports, run.run_id).state is RunState.FAILED
    assert _nothing_is_left(ports)


def test_a_stale_undo_touches_nothing_a_later_run_made(ports: Ports) -> None:
    first = _until_governor(ports, event())
    step.run_step(
        ports, _failing_last_step(OutageError("down", "down")), RUNBOOK.steps[-1].name, first.run_id
    )
    _subscribe(ports, event(event_id="e-2"))
    stale = first.journal["deploy_sku.documents"]
    undo = next(s.undo for s in RUNBOOK.steps if s.name == "deploy_sku.documents")

    undo(ports, first, stale)

    assert ports.documents.get(records.tenant_path("acme"))
    assert len(ports.documents.scan("tenants/acme/entitlements")) == 1


def test_an_undo_that_fails_is_receipted_and_alarmed_once_and_tried_again(ports: Ports) -> None:
    def refuses(_ports: Ports, _run: Run, _entry: object) -> None:
        raise OutageError("down", "the topic cannot be deleted")

    run = _until_governor(ports, event())
    failing = _failing_last_step(OutageError("down", "down"))
    stuck = dataclasses.replace(
        failing,
        steps=tuple(
            dataclasses.replace(s, undo=refuses) if s.name == "deploy_sku.signals" else s
            for s in failing.steps
        ),
    )
    for _ in range(2):
        with pytest.raises(OutageError):
            step.run_step(ports, stuck, RUNBOOK.steps[-1].name, run.run_id)

    assert _operations(ports) == ["compensation_failed", "alert_raised"]
    compensate.compensate(ports, RUNBOOK, run.run_id)
    assert _run(ports, run.run_id).state is RunState.FAILED
    assert _nothing_is_left(ports)


def test_a_policy_this_process_cannot_use_is_not_the_customers_fault(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks import policies

    with monkeypatch.context() as broken:
        broken.setattr(policies, "registered", dict)
        policies._load.cache_clear()
        run = _subscribe(ports, event())
        assert (run.state, run.error_code) == (RunState.FAILED, "policy-unusable")

    again = begin(ports, event(), b"{}")
    assert _play(ports, again.run_id).state is RunState.COMPLETE


def test_an_entitlement_that_cannot_be_used_jams_neither_undo_nor_account(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governor.errors import PolicyError
    from governor.records import Entitlement
    from tasks import deploy_sku

    _subscribe(ports, event())
    usable = deploy_sku._terms

    def terms(ports: Ports, entitlement: Entitlement) -> object:
        if entitlement.sku_id == "demo-sku":
            raise PolicyError("policy-unusable", "its handler is gone")
        return usable(ports, entitlement)

    monkeypatch.setattr(deploy_sku, "_terms", terms)
    run = _until_governor(ports, event(event_id="e-2", plan_type="professional"))
    step.run_step(
        ports, _failing_last_step(OutageError("down", "down")), RUNBOOK.steps[-1].name, run.run_id
    )

    assert _run(ports, run.run_id).state is RunState.FAILED
    assert ports.documents.get(records.turn_path("acme")) is None
