"""Runbook 6, changes of standing: what marketplaces tell of an entitlement between its ends."""

import pytest

from governor.errors import DeniedError
from governor.fsm import EntitlementState, RunState
from ports import Ports
from tests.engine.conftest import event, on_both
from tests.support import cancel
from tests.support.cancel import accept, told
from tests.support.runs import later, operations, subscribe

TERM = "2026-12-31T00:00:00.000000Z"


@pytest.fixture
def subscribed(ports: Ports) -> Ports:
    ports = later(ports)
    subscribe(ports, event())
    return ports


def _states(ports: Ports, *events: str) -> list[EntitlementState]:
    states = []
    for second, name in enumerate(events, 1):
        run = cancel.play(ports, told(name, second, effective_at=TERM))
        assert run.state is RunState.COMPLETE, run
        states.append(cancel.entitlement(ports).state)
    return states


@on_both
def test_a_suspended_entitlement_refuses_and_is_reinstated(subscribed: Ports) -> None:
    ports = subscribed
    cancel.play(ports, told("suspended", 1))

    with pytest.raises(DeniedError) as refused:
        accept(ports, "s-1")
    assert refused.value.code == "entitlement-suspended"
    assert cancel.entitlement(ports).state == "suspended"

    cancel.play(ports, told("reinstated", 2))
    accept(ports, "s-1")
    assert [r["state"] for r in cancel.of_kind(ports, "entitlement_suspended")] == ["suspended"]
    assert [r["state"] for r in cancel.of_kind(ports, "entitlement_reinstated")] == ["active"]


def test_a_cancellation_that_was_scheduled_and_reverted_leaves_no_trace(subscribed: Ports) -> None:
    ports = subscribed
    before = cancel.entitlement(ports)

    assert _states(ports, "cancellation_scheduled") == ["pending_cancellation"]
    assert cancel.entitlement(ports).cancels_at == TERM
    accept(ports, "s-1")  # it works on until the term ends
    cancel.play(ports, told("cancellation_reverted", 9))

    after = cancel.entitlement(ports)
    same = {"event_time": before.event_time, "run_id": before.run_id}
    assert after.evolve(**same) == before
    (scheduled,) = cancel.of_kind(ports, "entitlement_cancellation_scheduled")
    assert (scheduled["effective_at"], scheduled["status"]) == (TERM, "scheduled")
    assert len(cancel.of_kind(ports, "entitlement_cancellation_reverted")) == 1


def test_every_standing_leads_where_marketplaces_lead_it(subscribed: Ports) -> None:
    ports = subscribed
    moves = ("cancellation_scheduled", "suspended", "reinstated", "renewed", "suspended")

    assert _states(ports, *moves) == [
        "pending_cancellation",
        "suspended",
        "pending_cancellation",
        "active",
        "suspended",
    ]
    run = cancel.to_the_end(ports, cancel.play(ports, told("cancelled", 30)).run_id)
    assert run.state is RunState.COMPLETE
    assert cancel.entitlement(ports).state == "decommissioned"


@pytest.mark.parametrize(
    ("before", "name", "reason"),
    [
        ([], "reinstated", "no-change"),
        ([], "cancellation_reverted", "no-change"),
        (["suspended"], "suspended", "no-change"),
        (["suspended"], "created", "no-change"),
        (["cancelled"], "suspended", "ended"),
        (["cancelled"], "cancelled", "ended"),
    ],
)
def test_an_event_that_changes_nothing_is_acknowledged_and_receipted_once(
    subscribed: Ports, before: list[str], name: str, reason: str
) -> None:
    ports = subscribed
    for each in before:
        cancel.to_the_end(ports, cancel.play(ports, told(each, 5)).run_id)
    of = told(name, 20, event_id="again")

    assert cancel.play(ports, of).state is RunState.COMPLETE
    cancel.play(ports, of)

    (ignored,) = cancel.of_kind(ports, "event_ignored")
    assert (ignored["reason"], ignored["event_type"]) == (reason, f"entitlement.{name}")
    assert operations(ports).count("entitlement_active") == 1
    # It was seen: what is older than it is stale from now on.
    cancel.play(ports, told("created", 10, event_id="late"))
    assert [r["reason"] for r in cancel.of_kind(ports, "event_ignored")] == [reason, "stale"]
    assert operations(ports).count("entitlement_active") == 1


def test_an_event_before_its_subscription_is_delivered_again(ports: Ports) -> None:
    run = cancel.play(later(ports), told("suspended"))

    assert (run.state, run.error_code, run.retryable) == (
        RunState.FAILED,
        "no-entitlement-yet",
        True,
    )


def test_a_cancellation_that_names_no_time_is_never_older_than_what_was_told(
    subscribed: Ports,
) -> None:
    ports = subscribed
    cancel.play(ports, told("renewed", 50))  # by a marketplace whose clock is ahead of ours
    of = told("cancelled", 10).evolve(is_timed_by_arrival=True)

    run = cancel.to_the_end(ports, cancel.play(ports, of).run_id)

    assert run.state is RunState.COMPLETE
    assert len(cancel.of_kind(ports, "decommission_complete")) == 1
