"""Runbook 2: a version comes into force in every governor, or in none, or not in one alone."""

import dataclasses
import json
from typing import Any

import pytest

from governor.errors import ConflictError, InputError, OutageError
from governor.fsm import RunState
from ports import Ports
from ports.documents import Create, every
from tasks.actions.execute import execute
from tasks.governors import policies
from tasks.runbooks import upgrade_policy
from tasks.runbooks.upgrade import bake, comparison, incoming
from tasks.runbooks.upgrade.comparison import PolicyUpgrade
from tests.engine.conftest import event, on_both
from tests.support import cancel, upgrades
from tests.support.cancel import accept, told
from tests.support.faults import Fault, Writes, die, outage, watched
from tests.support.health import keep_lease
from tests.support.runs import ACCOUNT, later, subscribe, text_of
from tests.support.stores import Stores
from tests.support.upgrades import SYSTEM, Change, change, held, receipts, upgrade, version


def more(document: dict[str, Any]) -> None:
    document["quota"] |= {"concurrent_actions": 7, "max_concurrent_actions": 9}
    document["quota"]["monthly_actions"] = 2000


def less(document: dict[str, Any]) -> None:
    document["quota"]["monthly_actions"] = 500


@pytest.fixture
def subscribed(ports: Ports) -> Ports:
    return upgrades.subscribed(ports, ACCOUNT, "beta", "gamma")


def _limit(ports: Ports, account_id: str = ACCOUNT) -> int:
    return int(upgrades.stored(ports, account_id)["concurrent_actions"])


@on_both
def test_a_compatible_version_is_in_force_everywhere(subscribed: Ports) -> None:
    ports = subscribed
    running = accept(ports, "s-1")

    run = upgrade(ports, version("1.1.0", more))

    assert run.state is RunState.COMPLETE, run
    assert [held(ports, a) for a in (ACCOUNT, "beta", "gamma")] == ["1.1.0"] * 3
    assert policies.in_force(ports, "demo-sku", "starter").policy_version == "1.1.0"
    (upgraded,) = receipts(ports, "policy_upgraded")
    assert (upgraded["previous_version"], upgraded["concurrent_actions"]) == ("1.0.0", 7)
    assert upgraded["governors_updated"] == 1
    (broadcast,) = receipts(ports, "policy_broadcast", SYSTEM)
    assert (broadcast["governors_updated"], broadcast["governors_failed"]) == (3, 0)
    assert broadcast["policy_digest"] == upgraded["policy_digest"]
    # Admission goes by it; what was accepted before ends on the version it began on.
    execute(ports, ACCOUNT, running)
    execute(ports, ACCOUNT, accept(ports, "s-2"))
    versions = [r["policy_version"] for r in receipts(ports, "action_complete")]
    assert versions == ["1.0.0", "1.1.0"]
    subscribe(ports, event(account_id="delta", event_id="e-delta"))
    assert held(ports, "delta") == "1.1.0"


def test_an_incompatible_version_is_skipped_and_reported(subscribed: Ports) -> None:
    ports = subscribed

    run = upgrade(ports, version("2.0.0", less))

    assert run.state is RunState.COMPLETE
    (skipped,) = receipts(ports, "policy_upgrade_skipped", SYSTEM)
    assert skipped["incompatibilities"] == ["quota-lowered"]
    rows = [json.loads(line) for line in text_of(ports, skipped).splitlines()]
    assert (rows[0]["path"], rows[0]["against"]) == ("quota.monthly_actions", "1.0.0")
    assert receipts(ports, "alert_raised", SYSTEM)[-1]["cause"] == "policy_upgrade_skipped"
    assert held(ports) == "1.0.0"
    assert policies.in_force(ports, "demo-sku", "starter").policy_version == "1.0.0"


def test_a_forced_version_names_the_report_that_it_overrides(subscribed: Ports) -> None:
    ports = subscribed
    document = version("2.0.0", less)
    new = policies.register(ports, document).policy
    report = comparison.report_sha256(comparison.report(ports, new))
    forced = {"operator": "ops", "reason": "agreed with the customer"}

    refused = upgrade(ports, document, report_sha256="0" * 64, **forced)
    assert (refused.state, refused.error_code) == (RunState.REFUSED, "another-report")
    assert held(ports) == "1.0.0"

    assert upgrade(ports, document, report_sha256=report, **forced).state is RunState.COMPLETE
    assert held(ports) == "2.0.0"
    (told_so,) = receipts(ports, "policy_forced", SYSTEM)
    assert (told_so["operator"], told_so["operator_is"]) == ("ops", "unverified")
    assert told_so["findings_sha256"] == report
    assert text_of(ports, told_so) == "agreed with the customer"
    assert receipts(ports, "policy_upgraded")[0]["compatibility_check"] == "forced"


def test_a_governor_that_the_version_does_not_fit_stays_behind_alone(subscribed: Ports) -> None:
    ports = subscribed
    change(ports, "beta", operating_state="elsewhere")
    change(ports, "gamma", concurrent_actions=6)  # it was scaled

    run = upgrade(ports, version("1.1.0", more))

    assert run.state is RunState.COMPLETE
    assert [held(ports, a) for a in (ACCOUNT, "beta", "gamma")] == ["1.1.0", "1.0.0", "1.1.0"]
    (back,) = receipts(ports, "policy_rollback", "beta")
    assert (back["error_code"], back["previous_version"]) == ("state-unknown", "1.0.0")
    assert (_limit(ports), _limit(ports, "gamma")) == (7, 6)
    (broadcast,) = receipts(ports, "policy_broadcast", SYSTEM)
    assert (broadcast["governors_updated"], broadcast["governors_failed"]) == (2, 1)


def test_a_scaled_limit_is_lowered_to_what_the_version_allows(subscribed: Ports) -> None:
    ports = subscribed
    change(ports, concurrent_actions=40)

    upgrade(ports, version("1.1.0", more))

    assert _limit(ports) == 9


def test_the_same_content_in_other_bytes_is_the_same_version(subscribed: Ports) -> None:
    ports = subscribed
    first = policies.register(ports, version("1.1.0", more))
    spaced = json.dumps(json.loads(version("1.1.0", more)), indent=3).encode()

    again = policies.register(ports, spaced)

    assert (first.is_new, again.is_new, again.digest) == (True, False, first.digest)
    with pytest.raises(ConflictError):
        policies.register(ports, version("1.1.0", less))
    upgrade(ports, spaced)
    policy = again.policy
    asked = PolicyUpgrade(
        sku_id=policy.sku_id, plan_type=policy.plan_type, policy_version=policy.policy_version
    )
    assert upgrade_policy.ask(ports, asked) is None  # it is in force already
    assert len(receipts(ports, "policy_upgraded")) == 1


def test_a_name_that_was_in_force_and_removed_never_comes_back(subscribed: Ports) -> None:
    ports = subscribed
    spare: Change = lambda d: d["signals"].update({"demo.spare": "demo.succeed"})  # noqa: E731

    assert upgrade(ports, version("1.1.0", spare)).state is RunState.COMPLETE
    _force(ports, version("2.0.0"))
    upgrade(ports, version("2.1.0", spare))

    assert receipts(ports, "policy_upgrade_skipped", SYSTEM)[-1]["incompatibilities"] == [
        "reserved-name-reused"
    ]
    assert held(ports) == "2.0.0"


def _force(ports: Ports, document: bytes) -> None:
    new = policies.register(ports, document).policy
    report = comparison.report_sha256(comparison.report(ports, new))
    words = {"operator": "ops", "reason": "agreed with the customer"}
    assert upgrade(ports, document, report_sha256=report, **words).state is RunState.COMPLETE


def test_a_version_that_was_only_skipped_reserves_nothing(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("2.0.0", lambda d: d["signals"].pop("demo.spin")))

    run = upgrade(ports, version("2.1.0", more))

    assert run.state is RunState.COMPLETE
    assert held(ports) == "2.1.0"


def test_a_version_is_asked_for_again_once_its_obstacle_is_gone(subscribed: Ports) -> None:
    ports = subscribed
    change(ports, "beta", policy_version="0.9.0")  # it holds a version that had more
    policies.register(ports, version("0.9.0", lambda d: d["quota"].update(monthly_actions=9999)))
    upgrade(ports, version("1.1.0", more))
    assert len(receipts(ports, "policy_upgrade_skipped", SYSTEM)) == 1
    change(ports, "beta", state="decommissioned")  # who has gone loses nothing

    assert upgrade(ports, version("1.1.0", more)).state is RunState.COMPLETE

    assert (held(ports), held(ports, "beta")) == ("1.1.0", "0.9.0")


def test_a_version_that_was_never_in_force_is_no_way_back(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("2.0.0", less))  # skipped, and so registered

    run = upgrade(ports, version("2.0.1", less, lambda d: d.update(rolls_back="2.0.0")))

    assert (run.state, run.error_code) == (RunState.REFUSED, "not-a-way-back")


def test_who_catches_up_takes_the_version_that_is_in_force_by_then(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", more))
    newest = version("1.2.0", more, lambda d: d["quota"].update(monthly_actions=3000))
    policies.register(ports, newest)
    asked = PolicyUpgrade(sku_id="demo-sku", plan_type="starter", policy_version="1.2.0")
    began = upgrade_policy.ask(ports, asked)  # it has the turn, and has not flipped
    behind = upgrade_policy.catch_up(ports, "demo-sku", "starter", "1.0.0", "x")
    assert began
    assert behind
    cancel.to_the_end(ports, began.run_id)

    assert cancel.to_the_end(ports, behind.run_id).state is RunState.COMPLETE

    assert [held(ports, a) for a in (ACCOUNT, "beta", "gamma")] == ["1.2.0"] * 3
    assert len(receipts(ports, "policy_upgraded")) == 2


def test_who_was_left_behind_is_moved_within_the_hour(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", more))
    change(ports, "beta", policy_version="1.0.0")

    for _ in range(2):
        upgrade_policy.move_laggards(ports)
        for document in every(ports.documents, "runs"):
            cancel.carry_on(ports, document.data["run_id"])

    assert held(ports, "beta") == "1.1.0"
    assert len(receipts(ports, "policy_upgraded", "gamma")) == 1


def test_two_doors_at_once_are_one_upgrade(subscribed: Ports) -> None:
    ports = subscribed
    policies.register(ports, version("1.1.0", more))
    asked = PolicyUpgrade(sku_id="demo-sku", plan_type="starter", policy_version="1.1.0")
    first = upgrade_policy.ask(ports, asked)
    second = upgrade_policy.ask(ports, asked.evolve(asked_check=True))
    assert first
    assert second
    assert cancel.up_to_step(ports, first.run_id, "upgrade_policy.governors")
    found = upgrade_policy.ask(ports, asked)  # it has flipped, and is not through
    assert found
    assert found.run_id == first.run_id

    ends = [cancel.to_the_end(ports, run.run_id) for run in (first, second)]

    assert [end.state for end in ends] == [RunState.COMPLETE] * 2
    assert ends[0].receipt_id == ends[1].receipt_id
    assert upgrade_policy.ask(ports, asked) is None
    assert receipts(ports, "policy_validation_failed", SYSTEM) == []


@pytest.mark.parametrize("name", ["cancelled", "plan_changed", "suspended"])
def test_a_sweep_beside_another_run_of_the_entitlement_loses_neither(
    subscribed: Ports, name: str
) -> None:
    ports = subscribed
    policies.register(ports, version("1.1.0", more))

    class Sweeping:
        """Documents under which an upgrade moves the entitlement just before a commit of it."""

        is_done = False

        def __getattr__(self, name: str) -> object:
            return getattr(ports.documents, name)

        def commit(self, writes: Any) -> object:
            path = f"tenants/{ACCOUNT}/entitlements/demo-sku"
            if not self.is_done and any(write.path == path for write in writes):
                self.is_done = True
                upgrade(ports, version("1.1.0", more))
            return ports.documents.commit(writes)

    beside = dataclasses.replace(ports, documents=Sweeping())  # type: ignore[arg-type]
    run = cancel.play(beside, told(name, 9, plan_type="starter"))

    assert cancel.to_the_end(ports, run.run_id).state is RunState.COMPLETE
    for document in every(ports.documents, "runs"):  # and who has to catch up
        cancel.carry_on(ports, document.data["run_id"])
    assert held(ports) == "1.1.0"


@pytest.mark.parametrize("name", upgrades.BAD)
def test_nothing_bad_is_ever_stored(subscribed: Ports, name: str) -> None:
    before = list(subscribed.objects.names("policies/"))
    document = upgrades.BAD[name]
    subscribed.objects.create("incoming/bad.json", document)

    with pytest.raises(InputError):
        comparison.register(subscribed, document)
    for _ in range(2):
        incoming.take(subscribed, "incoming/bad.json", "1")

    (alert,) = receipts(subscribed, "alert_raised", SYSTEM)
    assert alert["cause"] == "policy_refused"

    (failed,) = receipts(subscribed, "policy_validation_failed", SYSTEM)
    assert text_of(subscribed, failed)
    assert list(subscribed.objects.names("policies/")) == before


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_whatever_write_fails_each_governor_is_moved_once(subscribed: Ports, fault: Fault) -> None:
    ports, at = subscribed, 1
    while True:
        keep_lease(ports)
        writes = Writes(at, fault, outage)
        done = policies.register(ports, version(f"1.{at}.0", more))
        asked = PolicyUpgrade(
            sku_id="demo-sku", plan_type="starter", policy_version=done.policy.policy_version
        )
        try:
            began = upgrade_policy.ask(watched(ports, writes), asked)
        except OutageError:
            began = upgrade_policy.ask(ports, asked)
        assert began
        cancel.carry_on(watched(ports, writes), began.run_id)
        assert cancel.to_the_end(ports, began.run_id).state is RunState.COMPLETE
        assert held(ports, "gamma") == f"1.{at}.0"
        assert len(receipts(ports, "policy_upgraded")) == at
        broadcasts = receipts(ports, "policy_broadcast", SYSTEM)
        assert [b["governors_updated"] for b in broadcasts] == [3] * at
        if writes.count < at:
            break
        at += 1
    assert at > 5


def test_a_cancellation_in_the_middle_ends_and_is_not_upgraded(subscribed: Ports) -> None:
    ports = subscribed
    done = policies.register(ports, version("1.1.0", more))
    asked = PolicyUpgrade(sku_id="demo-sku", plan_type="starter", policy_version="1.1.0")
    began = upgrade_policy.ask(ports, asked)
    assert began
    run = cancel.up_to(ports, told("cancelled"), "archive")

    assert cancel.to_the_end(ports, began.run_id).state is RunState.COMPLETE
    assert cancel.to_the_end(ports, run.run_id).state is RunState.COMPLETE
    assert done.is_new
    assert (held(ports), held(ports, "beta")) == ("1.0.0", "1.1.0")


def test_the_content_of_an_earlier_version_comes_back_as_a_new_one(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", more))
    first = policies.text_of(ports, "demo-sku", "starter", "1.0.0")

    run = upgrade(ports, policies.rolling_back(first, "1.1.1"))

    assert run.state is RunState.COMPLETE
    assert held(ports, "gamma") == "1.1.1"
    assert _limit(ports) == 5
    assert receipts(ports, "policy_upgraded")[-1]["compatibility_check"] == "rolls-back"
    assert receipts(ports, "policy_upgrade_skipped", SYSTEM) == []


def test_a_way_back_with_another_content_is_refused(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", more))

    run = upgrade(ports, version("1.1.1", less, lambda d: d.update(rolls_back="1.0.0")))

    assert (run.state, run.error_code) == (RunState.REFUSED, "not-a-way-back")
    assert held(ports) == "1.1.0"


def test_a_governor_made_while_a_version_flips_is_moved_too(subscribed: Ports) -> None:
    ports = subscribed
    of = event(account_id="late", event_id="e-late")
    made = cancel.up_to(ports, of, "finish")  # it has chosen the version that is in force now
    upgrade(ports, version("1.1.0", more))
    assert held(ports, "late") == "1.0.0"

    assert cancel.to_the_end(ports, made.run_id).state is RunState.COMPLETE
    (behind,) = [
        d.data["run_id"] for d in every(ports.documents, "runs") if d.data["trigger"] == "schedule"
    ]
    assert cancel.to_the_end(ports, behind).state is RunState.COMPLETE

    assert held(ports, "late") == "1.1.0"
    assert len(receipts(ports, "policy_upgraded", "late")) == 1
    assert len(receipts(ports, "policy_upgraded")) == 1


def test_a_governor_that_refused_has_it_offered_again_once_it_fits(subscribed: Ports) -> None:
    ports = subscribed
    change(ports, "beta", operating_state="elsewhere")
    upgrade(ports, version("1.1.0", more))
    upgrade_policy.move_laggards(ports)
    assert not [d for d in every(ports.documents, "runs") if d.data["trigger"] == "schedule"]

    change(ports, "beta", operating_state="active")
    upgrade_policy.move_laggards(ports)

    (behind,) = [
        d.data["run_id"] for d in every(ports.documents, "runs") if d.data["trigger"] == "schedule"
    ]
    assert cancel.to_the_end(ports, behind).state is RunState.COMPLETE
    assert held(ports, "beta") == "1.1.0"
    assert len(receipts(ports, "policy_rollback", "beta")) == 1


def test_a_thousand_that_refuse_are_asked_once(ports: Ports) -> None:
    ports = upgrades.subscribed(ports, ACCOUNT)
    change(ports, operating_state="elsewhere")
    kept = upgrades.stored(ports)
    names = [f"many-{number}" for number in range(999)]
    for at in range(0, 999, 333):
        some = [
            Create(f"tenants/{name}/entitlements/demo-sku", {**kept, "account_id": name})
            for name in names[at : at + 333]
        ]
        ports.documents.commit(some)

    assert upgrade(ports, version("1.1.0", more)).state is RunState.COMPLETE

    rolled = [
        found
        for found in every(ports.documents, "receipts", group=True)
        if json.loads(found.data["payload"])["operation"] == "policy_rollback"
    ]
    assert len(rolled) == 1000
    (broadcast,) = receipts(ports, "policy_broadcast", SYSTEM)
    assert (broadcast["governors_updated"], broadcast["governors_failed"]) == (0, 1000)
    writes = Writes(0, "lost", outage)
    for _ in range(20):
        ports.clock.sleep(30)
        bake.look(watched(ports, writes))
        upgrade_policy.move_laggards(watched(ports, writes))
    assert writes.count == 1  # that nothing could be said of the version, once


def _die(ports: Ports, at: int, run_id: str) -> None:
    cancel.carry_on(watched(later(ports), Writes(at, "landed", die)), run_id)


def test_killed_at_any_write_each_governor_has_one_receipt(ports: Ports, stores: Stores) -> None:
    ports, deaths = upgrades.subscribed(ports, ACCOUNT, "beta"), 0
    for at in range(1, 20):
        keep_lease(ports)
        run = upgrades.begin(ports, version(f"1.{at}.0", more))
        child = stores.process(_die, at, run.run_id)
        child.join(30)
        deaths += child.exitcode == -9
        assert cancel.to_the_end(ports, run.run_id).state is RunState.COMPLETE
        for account_id in (ACCOUNT, "beta"):
            assert held(ports, account_id) == f"1.{at}.0"
            assert len(receipts(ports, "policy_upgraded", account_id)) == at
        assert len(receipts(ports, "policy_broadcast", SYSTEM)) == at
        if child.exitcode == 0:
            break
    assert deaths >= 6
