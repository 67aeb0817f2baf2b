"""Traces from the record: whole, in order, the same twice, and without a tenant's words."""

from typing import Any

from governor import traces
from governor.actions import DEADLINE_EXCEEDED, WORKER_LOST, Action
from governor.fsm import ActionState, RunState
from governor.records import ProcessClaim
from governor.runs import JournalEntry, Run, Trigger, Wait

AT = "2026-11-23T12:00:{}.000000Z"
CLAIM = ProcessClaim(host="h", pid=1, process_started=1.0, claimed_at=AT.format("05"))


def _action(**changes: Any) -> Action:
    fields: dict[str, Any] = {
        "action_id": "action-1",
        "account_id": "acme",
        "sku_id": "crm",
        "signal_id": "s",
        "signal_type": "resize",
        "signal_sha256": "0" * 64,
        "payload": '{"secret":"hush"}',  # pragma: allowlist secret
        "handler": "crm.resize",
        "policy_version": "1.0.0",
        "timeout_ms": 500,
        "rollback_timeout_ms": 100,
        "queue_timeout_ms": 15_000,
        "recoverable": True,
        "deadline_from_submit": False,
        "accepted_at": AT.format("00"),
        "month": "2026-11",
        "state": ActionState.COMPLETE,
        "queue_ms": 250,
        "run_ms": 500,
        "claim": CLAIM,
    }
    return Action(**{**fields, **changes})


def _receipt(operation: str, second: str, **fields: Any) -> dict[str, Any]:
    return {
        "operation": operation,
        "timestamp": AT.format(second),
        "receipt_id": f"id-{operation}",
        "status": "success",
        "duration_ms": 100,
        **fields,
    }


def _whole(spans: list[traces.Span]) -> traces.Span:
    root, *others = spans
    assert root.parent_id is None
    assert all(s.parent_id == root.span_id and s.trace_id == root.trace_id for s in others)
    assert all(root.began_ns <= s.began_ns <= s.ended_ns <= root.ended_ns for s in spans)
    assert len({s.span_id for s in spans}) == len(spans)
    assert "hush" not in str(spans)
    return root


def test_an_action_is_a_trace_from_its_signal_to_its_receipt() -> None:
    spans = traces.of_action(_action(), [_receipt("action_complete", "01")])

    root = _whole(spans)
    assert [s.name for s in spans] == [
        "signal resize",
        "queued",
        "execute crm.resize",
        "receipt action_complete",
    ]
    assert root.error == ""
    assert spans[2].ended_ns - spans[2].began_ns == 500_000_000
    assert spans == traces.of_action(_action(), [_receipt("action_complete", "01")])


def test_a_killed_action_says_why_and_has_its_rollbacks() -> None:
    receipts = [
        _receipt("action_failed", "01", error_code=WORKER_LOST),
        _receipt("rollback_failed", "02", error_code="ROLLBACK_TIMEOUT", rollback_attempt=1),
        _receipt("action_rolled_back", "05"),
    ]
    spans = traces.of_action(_action(state=ActionState.ROLLED_BACK), receipts)

    root = _whole(spans)
    errors = {s.name: s.error for s in spans if s.error}
    assert errors == {
        "signal resize": "process-died",
        "execute crm.resize": "process-died",
        "rollback 1": "ROLLBACK_TIMEOUT",
    }
    assert root.attributes["ggen.state"] == "rolled_back"
    late = traces.of_action(
        _action(), [_receipt("action_timeout", "01", error_code=DEADLINE_EXCEEDED)]
    )
    assert late[0].error == "deadline"


def test_an_action_that_was_never_started_has_no_span_of_its_handler() -> None:
    receipts = [_receipt("action_timeout", "16", error_code="QUEUE_TIMEOUT")]
    spans = traces.of_action(_action(queue_ms=15_000, run_ms=0, claim=None), receipts)

    _whole(spans)
    assert [s.name for s in spans] == ["signal resize", "queued", "receipt action_timeout"]


def test_a_run_is_a_trace_of_its_steps_waits_and_undos() -> None:
    waits = Wait(reason="a minute", since=AT.format("02"))
    journal = {
        "r.wait": JournalEntry(
            state="done", wait=waits, began_at=AT.format("03"), done_at=AT.format("04")
        ),
        "r.first": JournalEntry(
            state="undone",
            began_at=AT.format("01"),
            done_at=AT.format("02"),
            undo_claim=CLAIM,
            undone_at=AT.format("06"),
        ),
        "r.failed": JournalEntry(state="intent", began_at=AT.format("04")),
        "r.never": JournalEntry(state="waiting", wait=waits),
        "r.quick": JournalEntry(state="undone", undone_at=AT.format("06")),
    }
    run = Run(
        run_id="run-1",
        runbook="r",
        definition_sha256="",
        account_id="acme",
        trigger=Trigger.WEBHOOK,
        inputs={},
        dedupe_key="e",
        turn="account/acme",
        body='{"secret":"hush"}',  # pragma: allowlist secret
        state=RunState.FAILED,
        journal=journal,
        started_at=AT.format("00"),
        deadline_at=AT.format("59"),
        error_code="NO_TOPIC",
        failed_step="r.failed",
    )
    spans = traces.of_run(run, _receipt("entitlement_failed", "07"))

    root = _whole(spans)
    assert (root.name, root.error) == ("webhook r", "NO_TOPIC")
    assert [(s.name, s.error) for s in spans[1:]] == [
        ("r.first", ""),
        ("r.wait waits", ""),
        ("r.never waits", ""),
        ("r.wait", ""),
        ("r.failed", "NO_TOPIC"),
        ("r.first.undo", ""),
        ("r.quick.undo", ""),
        ("receipt entitlement_failed", ""),
    ]


def test_what_a_step_took_is_known_once_it_is_done() -> None:
    began = JournalEntry(state="intent", began_at=AT.format("01"))

    assert began.took_ms is None
    assert began.evolve(done_at=AT.format("03")).took_ms == 2_000
