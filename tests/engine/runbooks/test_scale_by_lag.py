"""A governor under pressure is given more at once, by what is measured, and less again later."""

import hashlib
from typing import Any

import pytest
import redis

from governor import paths
from governor.errors import DeniedError, InputError
from governor.fsm import EntitlementState, RunState
from governor.runs import Run, Trigger
from governor.scaling.decision import Decision, decide
from governor.scaling.history import History
from governor.tenancy import Entitlement
from ingress.routes import alerts
from ledger import canonical
from ports import Ports
from ports.broadcasts import Listening
from ports.documents import Create, Query, Update
from ports.slots import Ended, Slot
from tasks.actions.admit import submit
from tasks.health import rebuild
from tasks.runbooks import scale_governor
from tasks.runbooks.scale import holds, pressed
from tasks.runbooks.scale.changes import NAME, Scaling
from tasks.runbooks.scale_governor import RUNBOOK
from tests.conftest import Valkey
from tests.engine.conftest import event, on_both
from tests.support.actions import signal_of
from tests.support.runs import later, play, receipts, subscribe

PLACE = "acme/demo-sku"


class Busy:
    """A governor with all its places taken, whose counts go on as a busy one's would."""

    def __init__(self, ports: Ports, valkey: Valkey) -> None:
        self.ports, self._redis = later(ports), redis.Redis.from_url(valkey.url)
        self._second = 0
        for number in range(20):
            submit(ports, signal_of(f"held-{number}"))

    def looks(
        self, seconds: int = 12, per_s: int = 30, children: int = 64, **rates: int
    ) -> Decision:
        """One look each two seconds; each second brings so many, and as many end after 1 s."""
        decision = None
        for _ in range(0, seconds, 2):
            self._second += 2
            counts = {
                "admitted": per_s,
                "refused": 10,
                "pushed_back": 0,
                "ended": per_s,
                "timed_out": 0,
                "held_ms": 1000 * per_s,
                **rates,
            }
            totals = {name: self._second * n for name, n in counts.items()}
            self._redis.hset(f"ggen:load:{PLACE}", mapping=totals)  # type: ignore[arg-type]
            self._redis.zadd("ggen:pressed", {PLACE: 0}, nx=True)
            works(self.ports, children)
            decision = pressed.look_at(self.ports, "acme", "demo-sku")
            self.ports.clock.sleep(2)
        assert decision
        return decision

    def rests(self, seconds: int) -> None:
        """Nothing is asked for so long, and nothing is in flight; a worker plays what begins."""
        waiting = self._redis.keys("ggen:dispatch:*")
        self._redis.delete(f"ggen:inflight:{PLACE}", f"ggen:load:{PLACE}", *waiting)
        for _ in range(0, seconds, 2):
            decision = pressed.look_at(self.ports, "acme", "demo-sku")
            if decision and decision.why == "idle":
                play(self.ports, runs(self.ports)[-1].run_id, RUNBOOK)
            self.ports.clock.sleep(2)


def works(ports: Ports, children: int) -> None:
    """A parent of workers is heard of."""
    claim = ports.processes.claim(ports.clock.now())
    ports.broadcasts.answer(Listening("actions", claim, (), children=children))


@pytest.fixture
def busy(ports: Ports, valkey: Valkey) -> Busy:
    subscribe(ports, event(plan_type="professional"))
    works(ports, 64)
    return Busy(ports, valkey)


def runs(ports: Ports) -> list[Run]:
    found = [Run.stored(d.data) for d in ports.documents.scan(Query("runs", limit=100))]
    return sorted((r for r in found if r.runbook == NAME), key=lambda run: run.started_at)


def told(ports: Ports) -> list[dict[str, Any]]:
    names = ("governor_", "quota_")
    return [r for r in receipts(ports, "acme") if r["operation"].startswith(names)]


def limit(ports: Ports) -> int:
    found = ports.documents.get(paths.entitlement_path("acme", "demo-sku"))
    assert found
    return Entitlement.stored(found.data).concurrent_actions


def history(ports: Ports) -> History:
    found = ports.documents.get(paths.scaling_path("acme", "demo-sku"))
    return History.stored(found.data) if found else History()


@on_both
def test_a_limit_that_binds_is_raised_and_the_decision_can_be_made_again(busy: Busy) -> None:
    decision = busy.looks(refused=40)  # 70 are needed, so that it is doubled on a slow machine, too

    assert (decision.limit, decision.why) == (40, "lag")
    (run,) = runs(busy.ports)
    assert run.trigger is Trigger.METRIC
    play(busy.ports, run.run_id, RUNBOOK)
    (proof,) = told(busy.ports)
    assert (limit(busy.ports), proof["concurrency"]) == (40, {"previous": 20, "new": 40})
    assert (proof["trigger"], proof["why"]) == ("lag", "lag")
    assert proof["lag_before"] == 20  # accepted, and not begun
    inputs = Scaling.stored(run.inputs).decided_from
    assert inputs
    assert (decide(inputs).limit, decide(inputs).why) == (40, "lag")
    digest = hashlib.sha256(canonical.dumps(inputs.document())).hexdigest()
    assert proof["decided_from"] == digest
    assert "operator" not in proof


def test_what_does_not_bind_raises_nothing(busy: Busy) -> None:
    assert busy.looks(refused=0).why == "not-binding"
    assert not told(busy.ports)


def test_handlers_that_time_out_raise_nothing(busy: Busy) -> None:
    assert busy.looks(60, timed_out=10).why == "handlers-timing-out"
    assert runs(busy.ports) == []


def test_without_free_workers_it_is_refused_once_and_the_operator_is_told(
    busy: Busy, ports: Ports
) -> None:
    held = Slot("acme", "demo-sku", paths.action_id("acme", "held-0"))
    ports.slots.begin(held, ports.processes.claim(ports.clock.now()), 60_000)
    asked_for = {busy.looks(2, children=1).why for _ in range(8)}
    assert asked_for == {"not-binding", "enough", "capacity"}
    (run,) = runs(busy.ports)

    play(busy.ports, run.run_id, RUNBOOK)

    (proof,) = told(busy.ports)
    assert (proof["operation"], proof["limit"]) == ("quota_exceeded", "capacity")
    assert (proof["trigger"], limit(busy.ports)) == ("lag", 20)
    causes = [r["cause"] for r in receipts(ports, "_system") if r["operation"] == "alert_raised"]
    assert causes == ["capacity"]
    assert busy.looks(20).why == "backing-off"
    assert len(runs(busy.ports)) == 1


@pytest.mark.parametrize(
    ("children", "at_work", "allowed"),
    [
        (64, 1, 40),
        (8, 1, 26),
        (8, 6, 21),
        (8, 7, 20),
        (5, 3, 21),
        (5, 4, 20),
        (4, 3, 21),
        (16, 13, 21),
    ],
)
def test_a_limit_rises_by_the_processes_that_are_free_but_for_one_in_eight(
    busy: Busy, ports: Ports, children: int, at_work: int, allowed: int
) -> None:
    """Its limit of 20 says nothing: short handlers are served by few."""
    for number in range(at_work):
        held = Slot("acme", "demo-sku", paths.action_id("acme", f"held-{number}"))
        ports.slots.begin(held, ports.processes.claim(ports.clock.now()), 60_000)

    decision = busy.looks(children=children)

    assert (decision.limit, decision.why) == (allowed, "lag" if allowed > 20 else "capacity")


def test_a_look_between_two_actions_does_not_hide_that_all_are_busy(
    busy: Busy, ports: Ports
) -> None:
    held = [Slot("acme", "demo-sku", paths.action_id("acme", f"held-{n}")) for n in range(7)]
    for slot in held:
        ports.slots.begin(slot, ports.processes.claim(ports.clock.now()), 60_000)
    busy.looks(6, children=8)
    busy._redis.delete("ggen:claims")  # none is under way for a moment

    assert busy.looks(4, children=8).why == "capacity"
    assert busy.looks(12, children=8).limit == 20 + 8 - 1


def test_workers_that_are_not_heard_of_are_no_reason_to_page(busy: Busy, ports: Ports) -> None:
    assert busy.looks(children=0).why == "workers-unknown"
    assert runs(ports) == []


def test_a_decision_that_waited_or_was_paused_meanwhile_changes_nothing(busy: Busy) -> None:
    busy.looks()
    busy.ports.clock.sleep(61)

    ended = play(busy.ports, runs(busy.ports)[0].run_id, RUNBOOK)

    assert (ended.state, ended.error_code) == (RunState.REFUSED, "superseded")
    assert limit(busy.ports) == 20


def test_one_whose_policy_cannot_be_used_does_not_keep_the_others_waiting(
    busy: Busy, ports: Ports
) -> None:
    found = ports.documents.get(paths.entitlement_path("acme", "demo-sku"))
    assert found
    odd = Entitlement.stored(found.data).evolve(entitlement_id="a-first", policy_version="9.9.9")
    path = paths.entitlement_path("acme", "a-first")
    ports.documents.commit([Create(path, odd.document())])
    for entitlement_id in ("a-first", "demo-sku"):
        ports.loads.press("acme", entitlement_id)

    pressed.look(ports)

    assert ports.loads.samples("acme", "demo-sku")
    assert ports.loads.pressed(10) == [("acme", "demo-sku")]


def test_a_pause_holds_it_and_ends_by_itself_or_by_command(busy: Busy) -> None:
    found = paths.entitlement_path("acme", "demo-sku")
    document = busy.ports.documents.get(found)
    assert document
    entitlement = Entitlement.stored(document.data)
    with pytest.raises(InputError, match="needs --reason"):
        holds.pause(busy.ports, entitlement, 60, "ops", "")
    holds.pause(busy.ports, entitlement, 60, "ops", "the customer tests its limit")

    assert busy.looks(20).why == "paused"
    assert holds.resume(busy.ports, entitlement, "ops")
    assert holds.resume(busy.ports, entitlement, "ops") is None
    assert busy.looks(4).why == "lag"
    assert [r["operation"] for r in told(busy.ports)] == [
        "governor_scaling_paused",
        "governor_scaling_resumed",
    ]
    holds.pause(busy.ports, entitlement, 10, "ops", "once more")
    assert busy.looks(14).why == "lag"


def raised(busy: Busy) -> Run:
    busy.looks()
    return play(busy.ports, runs(busy.ports)[-1].run_id, RUNBOOK)


def verified(busy: Busy, run: Run, waiting: int) -> Run:
    for number in range(waiting):
        busy.ports.signals.publish("acme", b'{"signal_id": "w%d"}' % number)
    busy.looks(62, per_s=30)
    return play(busy.ports, run.run_id, RUNBOOK)


def test_one_that_did_not_help_is_followed_by_a_longer_wait(busy: Busy) -> None:
    run = raised(busy)

    ended = verified(busy, run, 0)  # twenty are still accepted and not begun

    assert ended.journal[f"{NAME}.verify"].result["verdict"] == "same"
    assert (history(busy.ports).in_vain, limit(busy.ports)) == (1, 40)


def test_the_verdict_of_a_change_that_was_superseded_holds_nothing_back(busy: Busy) -> None:
    run = raised(busy)
    command = Scaling(
        account_id="acme", entitlement_id="demo-sku", operator="ops", new_concurrency=30
    )
    play(busy.ports, scale_governor.ask(busy.ports, command, "k").run_id, RUNBOOK)

    ended = verified(busy, run, 0)

    assert ended.journal[f"{NAME}.verify"].result["verdict"] == "superseded"
    assert (history(busy.ports).in_vain, limit(busy.ports)) == (0, 30)


@pytest.mark.parametrize(("per_s", "rose", "in_vain"), [(30, False, 1), (60, True, 0)])
def test_it_goes_back_where_more_wait_and_says_whether_more_came(
    busy: Busy, per_s: int, rose: bool, in_vain: int
) -> None:
    run = raised(busy)
    for number in range(50):
        busy.ports.signals.publish("acme", b'{"signal_id": "w%d"}' % number)
    busy._second = 10_000  # counts begin again, for the rates that follow
    busy.looks(62, per_s=per_s)

    ended = play(busy.ports, run.run_id, RUNBOOK)

    assert ended.journal[f"{NAME}.verify"].result["verdict"] == "worse"
    proof = told(busy.ports)[-1]
    assert proof["operation"] == "governor_scale_reverted"
    assert (proof["arrivals_rose"], limit(busy.ports)) == (rose, 20)
    assert history(busy.ports).in_vain == in_vain
    assert busy.looks(20).why == ("cooling-down" if rose else "backing-off")


def test_it_falls_again_when_it_is_not_needed_but_not_below_what_an_operator_set(
    busy: Busy,
) -> None:
    raised(busy)
    busy.rests(14 * 60)
    assert limit(busy.ports) == 24  # six tenths of 40
    assert told(busy.ports)[-1]["why"] == "idle"

    command = Scaling(
        account_id="acme", entitlement_id="demo-sku", operator="ops", new_concurrency=22
    )
    play(busy.ports, scale_governor.ask(busy.ports, command, "k").run_id, RUNBOOK)
    busy.rests(14 * 60)

    assert limit(busy.ports) == 22
    assert not busy.ports.loads.any_pressed()  # nothing of it can be taken back


def test_memory_that_was_lost_is_told_that_a_limit_may_fall_again(
    busy: Busy, valkey: Valkey
) -> None:
    raised(busy)
    redis.Redis.from_url(valkey.url).flushdb()
    assert not busy.ports.loads.any_pressed()

    rebuild.rebuild(busy.ports, 33)

    assert busy.ports.loads.pressed(10) == [("acme", "demo-sku")]


@pytest.mark.parametrize("state", [EntitlementState.SUSPENDED, EntitlementState.DRAINING])
def test_one_that_is_not_live_any_more_is_left_alone(busy: Busy, state: EntitlementState) -> None:
    busy.looks(8)
    path = paths.entitlement_path("acme", "demo-sku")
    found = busy.ports.documents.get(path)
    assert found
    gone = Entitlement.stored(found.data).evolve(state=state)
    busy.ports.documents.commit([Update(path, gone.document(), found.revision)])

    assert pressed.look_at(busy.ports, "acme", "demo-sku") is None
    assert not busy.ports.loads.any_pressed()


def test_one_that_was_cancelled_after_the_decision_keeps_its_limit(busy: Busy) -> None:
    busy.looks()
    path = paths.entitlement_path("acme", "demo-sku")
    found = busy.ports.documents.get(path)
    assert found
    gone = Entitlement.stored(found.data).evolve(state=EntitlementState.DECOMMISSIONED)
    busy.ports.documents.commit([Update(path, gone.document(), found.revision)])

    ended = play(busy.ports, runs(busy.ports)[0].run_id, RUNBOOK)

    assert (ended.state, ended.error_code) == (RunState.REFUSED, "not-active")
    assert limit(busy.ports) == 20


def test_admissions_refusals_and_ends_are_counted_where_they_happen(
    ports: Ports, busy: Busy
) -> None:
    for number in range(3):
        with pytest.raises(DeniedError):
            submit(ports, signal_of(f"more-{number}"))
    for number, ending in enumerate(("complete", "timed_out")):
        slot = Slot("acme", "demo-sku", paths.action_id("acme", f"held-{number}"))
        for _ in range(2):  # a place is given back once
            ports.slots.release(slot, ended=Ended("d", ending))  # type: ignore[arg-type]
    unstored = Slot("acme", "demo-sku", paths.action_id("acme", "held-2"))
    ports.slots.release(unstored, refund_month="2026-11")

    load = ports.loads.load("acme", "demo-sku")

    assert (load.admitted, load.refused, load.ended, load.timed_out) == (20, 3, 2, 1)
    assert (load.in_flight, load.pushed_back, ports.loads.pushed_back("acme")) == (17, 3, 3)
    assert load.held_ms >= 0
    submit(ports, signal_of("more-0"))
    assert ports.loads.pushed_back("acme") == 2
    assert ports.loads.pressed(10) == [("acme", "demo-sku")]


def test_an_alert_of_monitoring_has_a_tenant_looked_at_once(ports: Ports, busy: Busy) -> None:
    alerts._look_now(ports, "acme", "0.abc")
    assert ports.loads.pressed(10) == [("acme", "demo-sku")]
    ports.loads.rest("acme", "demo-sku")
    alerts._look_now(ports, "acme", "0.abc")
    assert not ports.loads.any_pressed()

    for _ in range(2):  # one that failed is looked at again
        with pytest.raises(InputError, match="no entitlement in use"):
            alerts._look_now(ports, "no-such-account", "0.def")
