"""Runbook 6: what events mean, in whatever order they come."""

import dataclasses
import itertools

import pytest

from governor import paths, quota
from governor.errors import ConflictError, OutageError
from governor.fsm import GovernorState, RunState
from governor.tenancy import Entitlement, MarketplaceEvent
from ports import Ports
from ports.documents import Query, Update
from ports.signals import Topic
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.governors import policies
from tasks.marketplace import begin
from tests.engine.conftest import event
from tests.support.runs import (
    everything_is_there,
    failing,
    nothing_is_left,
    operations,
    play,
    play_until,
    receipts,
    run_of,
    subscribe,
)


def _at(second: int) -> str:
    return f"2026-11-23T12:00:{second:02}.000000Z"


def _changed(plan_type: str, second: int, event_id: str = "e-2") -> MarketplaceEvent:
    return event(
        event_id=event_id,
        event_type="entitlement.plan_changed",
        plan_type=plan_type,
        event_time=_at(second),
    )


def _entitlement(ports: Ports, sku_id: str = "demo-sku") -> Entitlement:
    found = ports.documents.get(paths.entitlement_path("acme", sku_id))
    assert found
    return Entitlement.model_validate(found.data)


def _publish_other_sku(ports: Ports) -> None:
    other = (ports.objects.get("policies/demo-sku/starter/1.0.0.json") or b"").replace(
        b'"demo-sku"', b'"other-sku"'
    )
    policies.register(ports, other)


def test_an_unknown_sku_is_refused_for_good(ports: Ports) -> None:
    run = subscribe(ports, event(sku_id="nope"))

    assert run.state is RunState.REFUSED
    assert nothing_is_left(ports)
    assert begin(ports, event(sku_id="nope"), b"{}") == run


def test_a_failed_second_entitlement_leaves_the_first_as_it_was(ports: Ports) -> None:
    subscribe(ports, event())
    before = ports.documents.get(paths.tenant_path("acme"))

    subscribe(ports, event(event_id="e-2", sku_id="nope"))

    assert ports.documents.get(paths.tenant_path("acme")) == before
    assert ports.signals.look("acme", "us-central1") is Topic.READY


@pytest.mark.parametrize(
    ("former", "plan", "concurrent"),
    [("starter", "professional", 20), ("enterprise", "starter", 5)],
)
def test_a_plan_change_up_or_down_keeps_the_governor_and_changes_its_terms(
    ports: Ports, former: str, plan: str, concurrent: int
) -> None:
    subscribe(ports, event(plan_type=former))
    tenant = ports.documents.get(paths.tenant_path("acme"))

    subscribe(ports, _changed(plan, 1))

    changed = receipts(ports)[-1]
    assert changed["operation"] == "entitlement_plan_changed"
    assert (changed["previous_plan_type"], changed["plan_type"]) == (former, plan)
    assert changed["quota"]["concurrent_actions"] == concurrent
    assert _entitlement(ports).concurrent_actions == concurrent
    assert ports.documents.get(paths.tenant_path("acme")) == tenant


def test_a_plan_change_down_holds_back_new_actions_and_ends_none(ports: Ports) -> None:
    from governor.errors import DeniedError
    from tasks.actions.admit import Signal, submit

    subscribe(ports, event(plan_type="professional"))
    for n in range(6):
        submit(ports, Signal("acme", f"s{n}", "demo.succeed", None, {}))

    subscribe(ports, _changed("starter", 1))

    with pytest.raises(DeniedError, match="plan allows"):
        submit(ports, Signal("acme", "one-more", "demo.succeed", None, {}))
    assert ports.memory.in_flight("acme", ["demo-sku"]) == 6


def test_a_plan_change_names_no_region_and_moves_none(ports: Ports) -> None:
    subscribe(ports, event(region="europe-west1"))

    subscribe(ports, _changed("professional", 1))

    assert _entitlement(ports).region == "europe-west1"


def test_a_plan_change_that_fails_puts_the_former_terms_back(ports: Ports) -> None:
    subscribe(ports, event())
    before = _entitlement(ports)
    run = play_until(ports, _changed("professional", 1), "entitlement_lifecycle.finish")

    play(ports, run.run_id, failing("entitlement_lifecycle.finish", ConflictError("x", "x")))

    assert run_of(ports, run.run_id).state is RunState.FAILED
    assert _entitlement(ports) == before
    assert everything_is_there(ports)


def test_a_plan_change_before_its_subscription_is_refused_for_now(ports: Ports) -> None:
    early = begin(ports, _changed("professional", 1), b"{}")
    run = play(ports, early.run_id)

    assert (run.state, run.error_code) == (RunState.FAILED, "no-entitlement-yet")
    assert nothing_is_left(ports)
    subscribe(ports, event(event_time=_at(0)))
    again = play(ports, begin(ports, _changed("professional", 1), b"{}").run_id)
    assert (again.state, again.attempt) == (RunState.COMPLETE, 2)
    assert _entitlement(ports).plan_type == "professional"
    assert operations(ports) == [
        "entitlement_failed",
        "entitlement_active",
        "entitlement_plan_changed",
    ]


def _cancelled(ports: Ports) -> None:
    """What Runbook 7 leaves behind."""
    for path in (paths.tenant_path("acme"), paths.entitlement_path("acme", "demo-sku")):
        found = ports.documents.get(path)
        assert found
        data = {**found.data, "state": GovernorState.DECOMMISSIONED}
        ports.documents.commit([Update(path, data, found.revision)])
    ports.signals.delete("acme")
    ports.memory.forget("acme", ports.memory.begin_boot())


def test_a_plan_change_of_a_cancelled_entitlement_is_refused_for_good(ports: Ports) -> None:
    subscribe(ports, event())
    _cancelled(ports)

    run = subscribe(ports, _changed("professional", 1))

    assert (run.state, run.error_code) == (RunState.REFUSED, "no-entitlement")


def test_a_resubscription_makes_a_new_governor_on_the_same_ledger(ports: Ports) -> None:
    subscribe(ports, event())
    _cancelled(ports)

    subscribe(ports, event(event_id="e-2", event_time=_at(9)))

    assert everything_is_there(ports)
    assert [r["fsm_id"] for r in receipts(ports)] == ["governor-acme", "governor-acme-g2"]


def test_a_resubscription_that_fails_leaves_the_cancelled_one_as_it_was(ports: Ports) -> None:
    subscribe(ports, event())
    _cancelled(ports)
    before = ports.documents.get(paths.tenant_path("acme"))
    assert before
    again = play_until(ports, event(event_id="e-2", event_time=_at(9)), "deploy_sku.governor")

    play(ports, again.run_id, failing("deploy_sku.governor", ConflictError("x", "x")))

    after = ports.documents.get(paths.tenant_path("acme"))
    assert after
    assert after.data == before.data
    assert ports.signals.look("acme", "us-central1") is Topic.ABSENT


def test_an_event_older_than_what_is_in_force_changes_nothing(ports: Ports) -> None:
    subscribe(ports, event())
    before = _entitlement(ports)

    late = subscribe(
        ports,
        event(event_id="e-0", plan_type="enterprise", event_time="2026-11-23T11:59:59.000000Z"),
    )

    assert late.state is RunState.COMPLETE
    assert _entitlement(ports) == before
    assert operations(ports) == ["entitlement_active", "event_ignored"]
    assert receipts(ports)[-1]["reason"] == "stale"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_whatever_the_order_the_newest_event_is_in_force_in_the_end(
    ports: Ports, order: tuple[int, ...]
) -> None:
    events = [
        event(event_time=_at(0)),
        _changed("professional", 1, "e-1b"),
        _changed("enterprise", 2, "e-1c"),
    ]
    waiting = [events[n] for n in order]
    for _ in range(3):  # a marketplace delivers again what was refused for now
        waiting = [e for e in waiting if subscribe(ports, e).state is not RunState.COMPLETE]

    assert waiting == []
    assert _entitlement(ports).plan_type == "enterprise"
    assert operations(ports).count("entitlement_active") == 1


def test_two_entitlements_live_side_by_side(ports: Ports) -> None:
    _publish_other_sku(ports)
    subscribe(ports, event())
    subscribe(ports, event(event_id="e-2", sku_id="other-sku"))

    assert [r["sku_id"] for r in receipts(ports)] == ["demo-sku", "other-sku"]
    assert len(ports.documents.scan(Query("tenants/acme/entitlements"))) == 2


def test_a_second_entitlement_that_fails_never_shuts_the_door_of_the_first(ports: Ports) -> None:
    from tasks.actions.admit import Signal, submit

    _publish_other_sku(ports)
    subscribe(ports, event())
    second = play_until(
        ports, event(event_id="e-2", sku_id="other-sku"), "entitlement_lifecycle.finish"
    )
    assert submit(ports, Signal("acme", "s1", "demo.succeed", None, {}))

    play(ports, second.run_id, failing("entitlement_lifecycle.finish", ConflictError("x", "x")))

    assert run_of(ports, second.run_id).state is RunState.FAILED
    assert submit(ports, Signal("acme", "s2", "demo.succeed", None, {}))
    assert len(ports.documents.scan(Query("tenants/acme/entitlements"))) == 1


def test_a_registered_policy_version_never_changes(ports: Ports) -> None:
    changed = (ports.objects.get("policies/demo-sku/starter/1.0.0.json") or b"").replace(
        b"1000", b"9"
    )

    with pytest.raises(ConflictError):
        policies.register(ports, changed)


def test_a_policy_this_process_cannot_use_is_not_the_customers_fault(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(policies, "registered", dict)
        policies.forget_loaded()
        run = subscribe(ports, event())
        assert (run.state, run.error_code) == (RunState.FAILED, "policy-unusable")
    policies.forget_loaded()

    again = begin(ports, event(), b"{}")
    assert play(ports, again.run_id).state is RunState.COMPLETE


def test_an_entitlement_that_cannot_be_used_jams_neither_undo_nor_account(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    from governor.errors import PolicyError
    from tasks.governors import boot

    subscribe(ports, event())
    usable = boot._terms

    def terms(ports: Ports, entitlement: Entitlement) -> object:
        if entitlement.sku_id == "demo-sku":
            raise PolicyError("policy-unusable", "its handler is gone")
        return usable(ports, entitlement)

    monkeypatch.setattr(boot, "_terms", terms)
    run = play_until(
        ports, event(event_id="e-2", plan_type="professional"), "entitlement_lifecycle.finish"
    )
    play(ports, run.run_id, failing("entitlement_lifecycle.finish", ConflictError("x", "x")))

    assert run_of(ports, run.run_id).state is RunState.FAILED
    assert ports.documents.get(paths.turn_path("account/acme")) is None


def test_a_governor_that_cannot_be_booted_raises_a_critical_alert(ports: Ports) -> None:
    class Deaf:
        def __getattr__(self, name: str) -> object:
            return getattr(ports.memory, name)

        def boot(self, *_: object) -> None:
            raise OutageError("memory-unavailable", "Memory takes no governor")

    from tests.support.runs import later, play_to_the_end

    deaf = dataclasses.replace(later(ports), memory=Deaf())  # type: ignore[arg-type]

    run = play_to_the_end(deaf, begin(deaf, event(), b"{}").run_id)

    assert run.failed_step == "deploy_sku.governor"
    assert operations(ports) == ["entitlement_failed", "alert_raised"]
    told = receipts(ports)[-1]
    assert (told["severity"], told["cause"]) == ("critical", "governor_boot_failed")
    assert nothing_is_left(ports)


def test_one_sku_bought_twice_is_two_entitlements_with_terms_and_use_of_their_own(
    ports: Ports,
) -> None:
    subscribe(ports, event(entitlement_id="order-1", plan_type="starter"))
    subscribe(ports, event(event_id="e-2", entitlement_id="order-2", plan_type="professional"))
    ours = Signal("acme", "s-1", "demo.succeed", None, {}, "order-2")

    for named in (None, "demo-sku"):
        with pytest.raises(ConflictError) as ambiguous:
            submit(ports, Signal("acme", "s-0", "demo.succeed", named, {}))
        assert ambiguous.value.code == "ambiguous"
    action_id = submit(ports, ours)
    execute(ports, "acme", action_id)
    subscribe(ports, _changed("enterprise", 9, "e-3").evolve(entitlement_id="order-1"))

    assert submit(ports, ours) == action_id
    with pytest.raises(ConflictError):
        submit(ports, dataclasses.replace(ours, entitlement_id="order-1"))
    told = receipts(ports)
    named = {(r["operation"], r.get("entitlement_id")) for r in told}
    assert named == {
        ("entitlement_active", "order-1"),
        ("entitlement_active", "order-2"),
        ("entitlement_plan_changed", "order-1"),
        ("action_complete", "order-2"),
    }
    plans = [_entitlement(ports, each).plan_type for each in ("order-1", "order-2")]
    assert plans == ["enterprise", "professional"]
    month = quota.month_of(ports.clock.now())
    assert [ports.memory.used("acme", each, month) for each in ("order-1", "order-2")] == [0, 1]


def test_an_entitlement_keeps_its_product(ports: Ports) -> None:
    _publish_other_sku(ports)
    subscribe(ports, event(entitlement_id="order-1"))

    run = subscribe(ports, event(event_id="e-2", entitlement_id="order-1", sku_id="other-sku"))

    assert (run.state, run.error_code) == (RunState.REFUSED, "entitlement-of-another-sku")
    assert _entitlement(ports, "order-1").sku_id == "demo-sku"
