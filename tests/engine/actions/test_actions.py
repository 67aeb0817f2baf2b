"""Actions: started at most once, ended once, undone, whichever write fails."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governor.fsm import ActionState
from ports import Ports
from ports.documents import Query
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.actions.recover import roll_back
from tests.engine.conftest import event, on_both
from tests.support.actions import (
    action_of,
    every_receipt_is_valid,
    in_flight,
    later,
    offer,
    operations,
    receipts,
    signal_of,
    worker,
)
from tests.support.faults import Fault
from tests.support.runs import subscribe
from tests.support.stores import Stores

pytestmark = on_both


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def test_a_good_action_is_complete_with_one_receipt_and_its_slot_free(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s"))
    assert in_flight(ports) == 1

    execute(ports, "acme", action_id)

    assert action_of(ports, action_id).state is ActionState.COMPLETE
    assert operations(ports, action_id) == ["action_complete"]
    assert in_flight(ports) == 0
    assert every_receipt_is_valid(ports)


@pytest.mark.parametrize(
    ("kind", "payload", "state", "told"),
    [
        ("demo.sleep", {"seconds": 5}, "rolled_back", ["action_timeout", "action_rolled_back"]),
        (
            "demo.fail",
            {"recoverable": True},
            "rolled_back",
            ["action_failed", "action_rolled_back"],
        ),
        ("demo.fail", {"recoverable": False}, "failed", ["action_failed"]),
        ("test.nothing_to_undo", {"sleep_s": 5}, "failed", ["action_timeout"]),
        ("test.nothing_to_undo", {"raises": "recoverable"}, "failed", ["action_failed"]),
    ],
    ids=["timeout", "recoverable", "unrecoverable", "timeout, no undo", "recoverable, no undo"],
)
def test_each_bad_end_has_its_state_and_receipts(
    ports: Ports, kind: str, payload: dict[str, Any], state: str, told: list[str]
) -> None:
    if kind.startswith("test."):
        offer(ports, kind)
    action_id = submit(ports, signal_of("s", kind, **payload))

    execute(ports, "acme", action_id)

    assert action_of(ports, action_id).state == state
    assert operations(ports, action_id) == told
    has_undo = not kind.startswith("test.")
    expected = {"rolled_back": "due", "failed": "impossible" if has_undo else "none"}[state]
    assert receipts(ports, action_id)[0]["rollback"] == expected
    assert in_flight(ports) == 0
    if state == "rolled_back":
        failure, undone = receipts(ports, action_id)
        assert undone["previous_action_receipt_id"] == failure["receipt_id"]
    elif has_undo:
        last = ports.documents.scan(Query("tenants/acme/receipts", order_by="timestamp"))[-1]
        assert last.data["operation"] == "alert_raised"


def test_a_failed_rollback_is_alarmed_and_tried_again_until_it_holds(ports: Ports) -> None:
    action_id = submit(ports, signal_of("s", "demo.rollback_fails", times=2))
    execute(ports, "acme", action_id)

    assert action_of(ports, action_id).state is ActionState.ROLLBACK_FAILED
    roll_back(ports, "acme", action_id)  # not due yet
    assert action_of(ports, action_id).rollback_attempts == 1
    roll_back(later(ports, 2), "acme", action_id)
    assert action_of(ports, action_id).state is ActionState.ROLLBACK_FAILED
    roll_back(later(ports, 5), "acme", action_id)

    assert action_of(ports, action_id).state is ActionState.ROLLED_BACK
    assert operations(ports, action_id) == [
        "action_failed",
        "rollback_failed",
        "rollback_failed",
        "action_rolled_back",
    ]
    assert [r["rollback_attempt"] for r in receipts(ports, action_id)[1:3]] == [1, 2]
    assert in_flight(ports) == 0


def test_two_workers_with_one_message_start_it_once(ports: Ports, stores: Stores) -> None:
    action_id = submit(ports, signal_of("started once", "demo.sleep", seconds=0.2))
    workers = [worker(stores, action_id) for _ in range(4)]
    for each in workers:
        each.join()

    demo = Path(os.environ["GGEN_STATE_DIR"], "demo-actions.jsonl").read_text()
    assert sum(action_id in line and '"start"' in line for line in demo.splitlines()) == 1
    assert operations(ports, action_id) == ["action_complete"]


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("failing", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "payload", "last"),
    [
        ("demo.succeed", {}, "action_complete"),
        ("demo.fail", {"recoverable": True}, "action_rolled_back"),
    ],
    ids=["complete", "rolled back"],
)
def test_whichever_write_fails_once_there_is_one_outcome(
    ports: Ports,
    faulty: Callable[[Fault, set[int]], Ports],
    fault: Fault,
    failing: int,
    kind: str,
    payload: dict[str, Any],
    last: str,
) -> None:
    broken = faulty(fault, {failing})

    action_id = submit(broken, signal_of("s", kind, **payload))
    execute(broken, "acme", action_id)

    told = operations(ports, action_id)
    assert told[-1] == last
    assert len(told) == len(set(told))
    assert in_flight(ports) == 0


def test_a_payload_model_that_fails_in_its_own_way_ends_the_action_and_nobody_else(
    ports: Ports,
) -> None:
    offer(ports, "test.odd_payload")
    action_id = submit(ports, Signal("acme", "odd", "test.odd_payload", None, {}))

    execute(ports, "acme", action_id)

    assert action_of(ports, action_id).state is ActionState.FAILED
    assert action_of(ports, action_id).error_code == "payload-invalid"
    assert operations(ports, action_id) == ["action_failed"]
