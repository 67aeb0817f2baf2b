"""A limit is changed within plan, month and budget; a minute later it goes back if lag grew."""

import dataclasses
import functools
from decimal import Decimal
from typing import Any

import pytest
import redis

from governor.errors import ConflictError, DeniedError, InputError
from governor.fsm import RUN_OPEN, RunState
from governor.paths import entitlement_path, scaling_path, turn_path
from governor.runs import Run
from governor.scaling.cost import cost_delta_usd
from governor.scaling.history import History
from governor.tenancy import Entitlement
from governor.times import instant
from ports import Ports
from ports.documents import Create, Delete, Update
from tasks.actions.admit import submit
from tasks.governors import policies
from tasks.health import rebuild
from tasks.runbooks import scale_governor
from tasks.runbooks.scale import limits
from tasks.runbooks.scale.changes import NAME, Scaling
from tasks.runbooks.scale_governor import RUNBOOK
from tests.conftest import Valkey
from tests.engine.conftest import event, on_both
from tests.support.actions import signal_of
from tests.support.faults import Fault, FaultyDocuments, Writes, die, watched
from tests.support.runs import carry_on, later, link, play, receipts, subscribe
from tests.support.stores import Stores

WRITES = 12
"""How many a change makes after it was begun; a test below counts them."""

REASON = "a customer's launch, agreed by phone"


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def asked(new: int, **changes: Any) -> Scaling:
    told = {"account_id": "acme", "entitlement_id": "demo-sku", "operator": "ops"}
    return Scaling(**{**told, "new_concurrency": new, **changes})


def begin(ports: Ports, wanted: Scaling, key: str = "k") -> Run:
    return play(ports, scale_governor.ask(ports, wanted, key).run_id, RUNBOOK)


def stored(ports: Ports) -> Entitlement:
    found = ports.documents.get(entitlement_path("acme", "demo-sku"))
    assert found
    return Entitlement.stored(found.data)


def limit(ports: Ports) -> int:
    return stored(ports).concurrent_actions


def told(ports: Ports) -> list[dict[str, Any]]:
    names = ("governor_", "quota_")
    return [r for r in receipts(ports, "acme") if r["operation"].startswith(names)]


def admitted(ports: Ports) -> int:
    """How many signals are let in at once."""
    for number in range(200):
        try:
            submit(ports, signal_of(f"at-once-{number}"))
        except DeniedError:
            return number
    raise AssertionError("there is no limit")


def publish(ports: Ports, count: int) -> None:
    for number in range(count):
        ports.signals.publish("acme", b'{"signal_id": "%d"}' % number)


@on_both
def test_twenty_become_fifty_at_the_next_admission_and_the_receipt_has_the_cost(
    ports: Ports,
) -> None:
    run = begin(ports, asked(50))

    (proof,) = told(ports)
    assert limit(ports) == 50
    assert admitted(ports) == 50
    assert (proof["operation"], proof["status"]) == ("governor_scaled", "success")
    assert proof["concurrency"] == {"previous": 20, "new": 50}
    assert (proof["quota_check"], proof["warnings"]) == ("passed", ["not-binding"])
    assert (proof["run_id"], proof["operator_is"]) == (run.run_id, "unverified")
    cost = cost_delta_usd(20, 50, Decimal("0.5"), instant(proof["timestamp"]))
    assert proof["cost_delta_usd"] == pytest.approx(float(cost), abs=0.001)


def test_it_outlives_memory(ports: Ports, valkey: Valkey) -> None:
    begin(ports, asked(30))
    redis.Redis.from_url(valkey.url).flushdb()
    rebuild.rebuild(ports, 33)

    assert admitted(ports) == 30


def test_fewer_at_once_cut_nobody_off(ports: Ports) -> None:
    for number in range(8):
        submit(ports, signal_of(f"s-{number}"))

    begin(ports, asked(5))

    (proof,) = told(ports)
    assert proof["cost_delta_usd"] <= 0
    assert ports.governors.in_flight("acme", ["demo-sku"]) == 8
    with pytest.raises(DeniedError, match="in flight"):
        submit(ports, signal_of("one more"))


@pytest.mark.parametrize(
    ("wanted", "terms", "named", "unit"),
    [
        (101, {}, ("max_concurrent_actions", 101, 100), "actions at once"),
        (50, {"monthly_actions": 0}, ("monthly_actions", 0, 0), "actions a month"),
        (50, {"monthly_budget_usd": Decimal(0)}, ("monthly_budget_usd", None, 0), "usd"),
    ],
)
def test_beyond_plan_month_or_budget_nothing_is_changed(
    ports: Ports,
    wanted: int,
    terms: dict[str, Any],
    named: tuple[str, float | None, float],
    unit: str,
) -> None:
    sample = policies.in_force(ports, "demo-sku", "professional")
    quota = sample.quota.model_copy(update=terms)
    policy = sample.model_copy(update={"sku_id": "tight", "quota": quota})
    policies.register(ports, policy.model_dump_json(exclude_none=True).encode())
    subscribe(ports, event(plan_type="professional", sku_id="tight", event_id="e-2"))

    run = begin(ports, asked(wanted, entitlement_id="tight"))

    (proof,) = told(ports)
    assert run.state is RunState.COMPLETE
    assert proof["operation"] == "quota_exceeded"
    assert (proof["limit"], proof["allowed"], proof["unit"]) == (named[0], named[2], unit)
    assert named[1] in (None, proof["requested"])
    kept = ports.documents.get(entitlement_path("acme", "tight"))
    assert kept
    assert Entitlement.stored(kept.data).concurrent_actions == 20


def test_an_operator_may_go_beyond_with_a_reason_that_is_kept(ports: Ports) -> None:
    with pytest.raises(InputError, match="--reason"):
        begin(ports, asked(150, quota_check=False, reason="please"))

    begin(ports, asked(150, quota_check=False, reason=REASON))

    (proof,) = told(ports)
    assert (proof["quota_check"], limit(ports)) == ("skipped", 150)
    text = ports.documents.get(f"tenants/acme/texts/{proof['receipt_id']}")
    assert text
    assert text.data["text"] == REASON


def test_what_was_spent_in_a_month_counts(ports: Ports) -> None:
    for number, wanted in enumerate((60, 100)):
        begin(ports, asked(wanted), str(number))
    each = [Decimal(str(r["cost_delta_usd"])) for r in told(ports)]

    assert stored(ports).scaling_usd == pytest.approx(sum(each), abs=Decimal("0.00001"))


def test_a_minute_later_it_goes_back_where_more_wait(ports: Ports) -> None:
    publish(ports, 40)
    ahead = later(ports)
    run = begin(ahead, asked(30))
    entry = run.journal[f"{NAME}.verify"]
    assert (run.state, entry.state) == (RunState.RUNNING, "waiting")
    publish(ports, 20)

    ahead.clock.sleep(61)
    ended = play(ahead, run.run_id, RUNBOOK)

    first, last = told(ports)
    assert (ended.state, ended.receipt_id) == (RunState.COMPLETE, last["receipt_id"])
    assert last["operation"] == "governor_scale_reverted"
    assert last["reverts_receipt_id"] == first["receipt_id"]
    assert (first["lag_before"], last["lag_before"], last["lag_after"]) == (40, 40, 60)
    assert ended.journal[f"{NAME}.verify"].result["verdict"] == "worse"
    assert last["concurrency"] == {"previous": 30, "new": 20}
    assert (limit(ports), admitted(ports)) == (20, 20)


def test_it_stays_where_no_more_wait_than_before(ports: Ports) -> None:
    publish(ports, 40)
    ahead = later(ports)
    run = begin(ahead, asked(30))
    publish(ports, 3)  # within a tenth

    ahead.clock.sleep(61)
    ended = play(ahead, run.run_id, RUNBOOK)

    scaled, verified = told(ports)
    assert (verified["operation"], verified["verdict"]) == ("governor_scale_verified", "same")
    assert verified["verifies_receipt_id"] == scaled["receipt_id"]
    assert (verified["lag_before"], verified["lag_after"]) == (40, 43)
    assert (ended.receipt_id, limit(ports)) == (scaled["receipt_id"], 30)


def test_what_somebody_else_changed_since_is_left_alone(ports: Ports) -> None:
    publish(ports, 40)
    ahead = later(ports)
    first = begin(ahead, asked(30), "first")
    begin(ahead, asked(40), "second")
    publish(ports, 40)

    ahead.clock.sleep(61)
    ended = play(ahead, first.run_id, RUNBOOK)

    assert ended.journal[f"{NAME}.verify"].result["verdict"] == "superseded"
    assert limit(ports) == 40
    assert [r["operation"] for r in told(ports)] == [
        "governor_scaled",
        "governor_scaled",
        "governor_scale_verified",
    ]


@on_both
@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_whichever_write_fails_it_is_scaled_once(ports: Ports, fault: Fault, failing: int) -> None:
    run = scale_governor.ask(ports, asked(50), "k")
    broken = dataclasses.replace(
        ports, documents=FaultyDocuments(ports.documents, fault, {failing})
    )

    play(broken, run.run_id, RUNBOOK)
    play(ports, run.run_id, RUNBOOK)

    assert [r["operation"] for r in told(ports)] == ["governor_scaled"]
    assert limit(ports) == 50


def test_one_that_changed_between_decision_and_commit_is_not_overrun(ports: Ports) -> None:
    run = scale_governor.ask(ports, asked(50), "k")
    links = RUNBOOK.links(run)
    link(ports, links[0][0], run.run_id, RUNBOOK)
    found = ports.documents.get(entitlement_path("acme", "demo-sku"))
    assert found
    other = Entitlement.stored(found.data).evolve(concurrent_actions=33)
    ports.documents.commit([Update(found.path, other.document(), found.revision)])

    ended = play(ports, run.run_id, RUNBOOK)

    assert ended.error_code == "superseded"
    assert [r["operation"] for r in told(ports)] == ["governor_scale_failed"]
    assert limit(ports) == 33


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"plan_type": "professional"}, 60),  # told once more
        ({"plan_type": "enterprise", "event_type": "entitlement.plan_changed"}, 100),
    ],
)
def test_an_event_keeps_what_was_spent_and_on_the_same_plan_the_limit(
    ports: Ports, told: dict[str, str], expected: int
) -> None:
    begin(ports, asked(60))
    spent = stored(ports).scaling_usd

    subscribe(ports, event(event_id="later", event_time="2026-12-01T00:00:00.000000Z", **told))

    assert (stored(ports).concurrent_actions, stored(ports).scaling_usd) == (expected, spent)
    assert spent > 0


def test_a_month_begins_with_what_was_raised_before_it(ports: Ports) -> None:
    begin(ports, asked(60))
    found = ports.documents.get(entitlement_path("acme", "demo-sku"))
    assert found
    past = Entitlement.stored(found.data).evolve(scaling_month="2001-01")
    ports.documents.commit([Update(found.path, past.document(), found.revision)])

    begin(ports, asked(61), "next")

    cost = Decimal(str(told(ports)[-1]["cost_delta_usd"]))
    assert stored(ports).scaling_usd == pytest.approx(40 * Decimal("0.5") + cost)


def test_what_is_seen_much_later_says_nothing_of_the_change(ports: Ports) -> None:
    publish(ports, 40)
    ahead = later(ports)
    run = begin(ahead, asked(30))
    publish(ports, 40)

    ahead.clock.sleep(3_600)  # the store was away
    play(ahead, run.run_id, RUNBOOK)

    assert limit(ports) == 30


def test_it_waits_while_another_run_of_the_account_goes_on(ports: Ports) -> None:
    turn = Create(turn_path("account/acme"), {"run_id": "run-other"})
    revision = ports.documents.commit([turn])[0]

    run = begin(ports, asked(30))
    assert (run.journal[f"{NAME}.apply"].state, limit(ports)) == ("waiting", 20)
    ports.documents.commit([Delete(turn.path, revision)])
    ahead = later(ports)
    ahead.clock.sleep(2)
    play(ahead, run.run_id, RUNBOOK)

    assert limit(ports) == 30


def test_the_limit_that_it_has_already_is_no_change(ports: Ports) -> None:
    assert begin(ports, asked(20)).error_code == "no-change"
    assert stored(ports).limited_by == ""


def test_the_entitlement_is_named_where_there_are_several(ports: Ports) -> None:
    subscribe(ports, event(entitlement_id="second", event_id="e-2"))

    with pytest.raises(ConflictError, match="--entitlement"):
        limits.the_entitlement(ports, "acme", None)
    assert limits.the_entitlement(ports, "acme", "second").entitlement_id == "second"
    with pytest.raises(InputError, match="has no entitlement"):
        limits.the_entitlement(ports, "acme", "third")
    with pytest.raises(InputError, match="has no entitlement"):
        limits.the_entitlement(ports, "nobody-here", None)


def _die(ports: Ports, run_id: str, at: int, fault: Fault) -> None:
    ahead = later(ports)
    for _ in range(3):  # what waits for the lag's reading is played on a minute later
        carry_on(watched(ahead, _writes(at, fault)), RUNBOOK, run_id)
        ahead.clock.sleep(61)


@functools.cache
def _writes(at: int, fault: Fault) -> Writes:
    return Writes(at, fault, die)


def _count(ports: Ports, run_id: str) -> int:
    writes, ahead = Writes(0, "lost", die), later(ports)
    for _ in range(3):
        carry_on(watched(ahead, writes), RUNBOOK, run_id)
        ahead.clock.sleep(61)
    return writes.count


def test_it_makes_as_many_writes_as_are_killed_below(ports: Ports) -> None:
    assert _count(ports, scale_governor.ask(ports, asked(50), "k").run_id) == WRITES


@pytest.mark.parametrize("fault", ["lost", "landed"])
@pytest.mark.parametrize("at", range(1, WRITES + 1))
def test_killed_at_any_write_it_is_scaled_once_and_memory_knows(
    ports: Ports, stores: Stores, at: int, fault: Fault
) -> None:
    run = scale_governor.ask(ports, asked(50), "k")
    child = stores.process(_die, run.run_id, at, fault)
    child.join(30)
    assert child.exitcode == -9

    ended, ahead = run, later(ports)
    while ended.state in RUN_OPEN:
        ended = play(ahead, run.run_id, RUNBOOK)
        ahead.clock.sleep(20)

    assert ended.state is RunState.COMPLETE
    operations = [r["operation"] for r in told(ports)]
    assert operations == ["governor_scaled", "governor_scale_verified"]
    assert (limit(ports), admitted(ports)) == (50, 50)
    kept = ports.documents.get(scaling_path("acme", "demo-sku"))
    assert kept
    assert len(History.stored(kept.data).changes) == 1
