"""A version in its first minutes: passed, left again by everybody, or tried by a few first."""

from collections.abc import Callable
from typing import Any

import pytest

from governor.errors import OutageError
from governor.fsm import RUN_OPEN
from governor.runs import Run
from ports import Ports
from ports.documents import every
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.governors import broadcast, moves, policies
from tasks.runbooks.upgrade import bake, rollout, watches
from tests.engine.conftest import on_both
from tests.support import cancel, upgrades
from tests.support.cancel import accept
from tests.support.faults import Fault, Writes, outage, watched
from tests.support.health import keep_lease
from tests.support.runs import ACCOUNT
from tests.support.upgrades import PLAN, SYSTEM, held, receipts, upgrade, version

Change = Callable[[dict[str, Any]], object]
FEW = 4
"""How many ended actions prove something in these tests."""


def baking(document: dict[str, Any]) -> None:
    document["bake"] = {"min_actions": FEW}


@pytest.fixture
def subscribed(ports: Ports) -> Ports:
    return upgrades.subscribed(ports, ACCOUNT, "beta", "gamma")


def _act(ports: Ports, kind: str, count: int, name: str) -> None:
    for number in range(count):
        payload = {"recoverable": True} if kind == "demo.fail" else {}
        execute(ports, ACCOUNT, accept(ports, f"{name}-{number}", kind, **payload))


def _is_open(run: Run) -> bool:
    return run.state in RUN_OPEN


def _runs(ports: Ports) -> list[Run]:
    return [Run.stored(d.data) for d in every(ports.documents, "runs")]


def _play(ports: Ports) -> None:
    """What beat, workers and the reaper do until nothing is left to do."""
    for _ in range(5):
        bake.look(ports)
        opened = [run for run in _runs(ports) if _is_open(run)]
        for run in opened:
            cancel.to_the_end(ports, run.run_id)
        if not opened:
            return
    raise AssertionError("it goes on and on")


def _state(ports: Ports, wave: watches.Wave = "all") -> str | None:
    watch = watches.of(policies.pointer_of(ports, *PLAN), wave)
    return watch.state if watch else None


@on_both
def test_a_version_that_fails_is_left_by_everybody(subscribed: Ports) -> None:
    ports = subscribed
    _act(ports, "demo.succeed", FEW, "before")
    upgrade(ports, version("1.1.0", baking))
    _act(ports, "demo.fail", FEW - 1, "bad")
    _play(ports)
    assert (_state(ports), held(ports)) == ("watching", "1.1.0")  # too few to say anything

    _act(ports, "demo.fail", 1, "last")
    _play(ports)

    assert [held(ports, each) for each in (ACCOUNT, "beta", "gamma")] == ["1.1.1"] * 3
    way_back = policies.in_force(ports, *PLAN)
    assert (way_back.policy_version, way_back.rolls_back) == ("1.1.1", "1.0.0")
    (baked,) = receipts(ports, "policy_baked", SYSTEM)
    assert (baked["status"], baked["returns_to"], baked["policy_version"]) == (
        "returning",
        "1.0.0",
        "1.1.0",
    )
    counted = ("actions_ended", "actions_failed", "previous_ended", "previous_failing")
    assert [baked[name] for name in counted] == [FEW, FEW, FEW, 0]
    (alert,) = receipts(ports, "alert_raised", SYSTEM)
    assert (alert["cause"], alert["severity"]) == ("policy_bake_returning", "critical")
    for account_id in (ACCOUNT, "beta", "gamma"):
        assert len(receipts(ports, "policy_upgraded", account_id)) == 2
    # It is known to be good, is not judged again, and what failed is not tried again.
    runs = len(_runs(ports))
    _act(ports, "demo.fail", FEW, "again")
    ports.clock.sleep(400)
    keep_lease(ports)
    _play(ports)
    assert (len(_runs(ports)), held(ports)) == (runs, "1.1.1")


def test_a_version_that_does_no_worse_than_the_one_before_stays(subscribed: Ports) -> None:
    ports = subscribed
    _act(ports, "demo.fail", FEW, "before")
    upgrade(ports, version("1.1.0", baking))
    _act(ports, "demo.fail", FEW, "after")
    _play(ports)
    assert _state(ports) == "watching"

    ports.clock.sleep(301)
    keep_lease(ports)
    _play(ports)

    assert (_state(ports), held(ports)) == ("passed", "1.1.0")
    (baked,) = receipts(ports, "policy_baked", SYSTEM)
    assert (baked["status"], baked["previous_failing"]) == ("passed", FEW)
    assert receipts(ports, "alert_raised", SYSTEM) == []
    pointer = policies.pointer_of(ports, *PLAN)
    assert pointer
    assert watches.baked(pointer.data) == ["1.0.0", "1.1.0"]


def test_too_few_actions_prove_nothing_and_nobody_returns_to_that_version(
    subscribed: Ports,
) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking))
    ports.clock.sleep(301)
    keep_lease(ports)
    _play(ports)
    assert (_state(ports), held(ports)) == ("inconclusive", "1.1.0")
    assert receipts(ports, "alert_raised", SYSTEM)[-1]["cause"] == "policy_bake_inconclusive"

    upgrade(ports, version("1.2.0", baking))
    _act(ports, "demo.fail", FEW, "bad")
    _play(ports)

    assert policies.in_force(ports, *PLAN).rolls_back == "1.0.0"


def test_a_later_version_ends_the_watch_over_the_one_before(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking))
    _act(ports, "demo.fail", FEW, "bad")
    upgrade(ports, version("1.2.0", baking))

    _play(ports)

    assert (held(ports), receipts(ports, "policy_baked", SYSTEM)) == ("1.2.0", [])


def test_where_no_version_is_known_to_be_good_a_person_is_called(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking))
    _act(ports, "demo.fail", FEW, "bad")
    _play(ports)
    upgrade(ports, version("1.2.0", baking))
    pointer = policies.pointer_of(ports, *PLAN)
    assert pointer
    gone = {**pointer.data, "returned": watches.baked(pointer.data)}
    ports.documents.commit([upgrades.Update(pointer.path, gone, pointer.revision)])
    _act(ports, "demo.fail", FEW, "worse")

    _play(ports)

    assert (_state(ports), held(ports)) == ("stuck", "1.2.0")
    assert receipts(ports, "alert_raised", SYSTEM)[-1]["cause"] == "policy_bake_stuck"


def test_a_governor_that_cannot_return_stays_and_is_told_of(subscribed: Ports) -> None:
    ports = subscribed

    def with_a_state(document: dict[str, Any]) -> None:
        baking(document)
        document["states"] = ["active", "elsewhere"]

    upgrade(ports, version("1.1.0", with_a_state))
    upgrades.change(ports, "beta", operating_state="elsewhere")
    _act(ports, "demo.fail", FEW, "bad")
    _play(ports)

    assert (held(ports), held(ports, "beta")) == ("1.1.1", "1.1.0")
    (back,) = receipts(ports, "policy_rollback", "beta")
    assert (back["error_code"], back["policy_version"]) == ("state-unknown", "1.1.1")
    causes = {each["cause"] for each in receipts(ports, "alert_raised", SYSTEM)}
    assert causes == {"policy_bake_returning", "policy_return_incomplete"}


def test_canaries_try_a_version_and_all_follow(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking), canary=[ACCOUNT])

    assert [held(ports, each) for each in (ACCOUNT, "beta", "gamma")] == ["1.1.0", "1.0.0", "1.0.0"]
    assert policies.in_force(ports, *PLAN).policy_version == "1.0.0"
    (wave,) = receipts(ports, "policy_broadcast", SYSTEM)
    assert (wave["wave"], wave["governors_updated"]) == ("canary", 1)
    shown = rollout.status(ports, *PLAN)["canary"]
    assert (shown["state"], shown["accounts"]) == ("watching", [ACCOUNT])

    _act(ports, "demo.succeed", FEW, "good")
    ports.clock.sleep(301)
    keep_lease(ports)
    _play(ports)

    assert [held(ports, each) for each in (ACCOUNT, "beta", "gamma")] == ["1.1.0"] * 3
    waves = [each["wave"] for each in receipts(ports, "policy_broadcast", SYSTEM)]
    assert waves == ["canary", "all"]
    assert (_state(ports), _state(ports, "canary")) == ("watching", None)


def test_canaries_that_fail_return_and_nobody_else_ever_had_the_version(
    subscribed: Ports,
) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking), canary=[ACCOUNT])
    _act(ports, "demo.fail", FEW, "bad")

    _play(ports)

    assert [held(ports, each) for each in (ACCOUNT, "beta", "gamma")] == ["1.1.1"] * 3
    assert policies.in_force(ports, *PLAN).rolls_back == "1.0.0"
    moves = receipts(ports, "policy_upgraded", "beta")
    assert [each["policy_version"] for each in moves] == ["1.1.1"]


def test_a_share_of_the_accounts_is_the_same_whoever_asks() -> None:
    accounts = [f"tenant-{number}" for number in range(1000)]

    def members(percent: int) -> set[str]:
        return {a for a in accounts if watches.is_member(a, "crm", [], percent)}

    assert members(10) == members(10)
    assert members(10) < members(50)
    assert 60 < len(members(10)) < 140
    assert watches.is_member("by-name", "crm", ["by-name"], None)
    assert not watches.is_member("other", "crm", ["by-name"], None)


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_whatever_write_fails_everybody_returns_once(ports: Ports, fault: Fault) -> None:
    ports = upgrades.subscribed(ports, ACCOUNT, "beta")
    at = 1
    while True:
        keep_lease(ports)
        upgrade(ports, version(f"1.{at}.0", baking))
        _act(ports, "demo.fail", FEW, f"bad-{at}")
        writes = Writes(at, fault, outage)
        for _ in range(3):
            try:
                bake.look(watched(ports, writes))
            except OutageError:
                continue
        _play(ports)
        assert (held(ports), held(ports, "beta")) == (f"1.{at}.1", f"1.{at}.1")
        assert len(receipts(ports, "policy_baked", SYSTEM)) == at
        assert len(receipts(ports, "policy_upgraded", "beta")) == 2 * at
        if writes.count < at:
            break
        at += 1
    assert at >= 3


def test_one_tenant_alone_sends_nobody_back(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking))
    execute(ports, "beta", submit(ports, Signal("beta", "well", "demo.succeed", None, {})))
    _act(ports, "demo.fail", 2 * FEW, "garbage")
    _play(ports)
    assert (_state(ports), held(ports)) == ("watching", "1.1.0")

    ports.clock.sleep(301)
    keep_lease(ports)
    _play(ports)

    assert (_state(ports), held(ports)) == ("inconclusive", "1.1.0")


def test_a_version_of_an_earlier_release_counts_as_good(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0"))
    pointer = policies.pointer_of(ports, *PLAN)
    assert pointer
    former = {k: v for k, v in pointer.data.items() if k not in ("baked", "returned", "bake")}
    ports.documents.commit([upgrades.Update(pointer.path, former, pointer.revision)])
    upgrade(ports, version("1.2.0", baking))
    _act(ports, "demo.fail", FEW, "bad")

    _play(ports)

    assert policies.in_force(ports, *PLAN).rolls_back == "1.1.0"


def test_a_higher_version_that_cannot_be_used_here_is_in_nobodys_way(subscribed: Ports) -> None:
    ports = subscribed
    foreign = version("3.0.0").replace(b'"demo.spin"', b'"crm.of_another_release"')
    ports.objects.create("policies/demo-sku/starter/3.0.0.json", foreign)
    upgrade(ports, version("1.1.0", baking))
    _act(ports, "demo.fail", FEW, "bad")

    _play(ports)

    assert policies.in_force(ports, *PLAN).rolls_back == "1.0.0"


def test_a_return_that_was_overtaken_takes_back_no_later_version(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking))
    fix = upgrades.begin(ports, version("1.2.0", baking))
    _act(ports, "demo.fail", FEW, "bad")
    bake.look(ports)  # the return waits behind the fix
    assert cancel.to_the_end(ports, fix.run_id).state == "complete"

    _play(ports)

    assert policies.in_force(ports, *PLAN).policy_version == "1.2.0"
    assert held(ports) == "1.2.0"


def test_nobody_takes_a_version_any_more_that_is_to_be_left(subscribed: Ports) -> None:
    ports = subscribed
    run = upgrades.begin(ports, version("1.1.0", baking))
    for step in ("check", "flip"):
        cancel.run_link(ports, cancel.RUNBOOKS, f"upgrade_policy.{step}", run.run_id)
    broadcast.tell(ports, *PLAN)
    _act(ports, "demo.fail", FEW, "bad")  # acme takes it at its first signal
    bake.look(ports)
    assert cancel.to_the_end(ports, run.run_id).state == "complete"
    _play(ports)

    assert [held(ports, each) for each in (ACCOUNT, "beta", "gamma")] == ["1.1.1"] * 3
    for account_id in ("beta", "gamma"):
        moves = receipts(ports, "policy_upgraded", account_id)
        assert [each["policy_version"] for each in moves] == ["1.1.1"]


def test_one_version_is_tried_at_a_time(subscribed: Ports) -> None:
    ports = subscribed
    upgrade(ports, version("1.1.0", baking), canary=[ACCOUNT])

    other = upgrade(ports, version("1.2.0", baking), canary=["beta"])

    assert (other.state, other.error_code) == ("refused", "canary-on-trial")
    assert held(ports, "beta") == "1.0.0"


def test_a_governor_that_refuses_twice_has_two_receipts(subscribed: Ports) -> None:
    ports = subscribed
    upgrades.change(ports, "beta", operating_state="elsewhere")
    upgrade(ports, version("1.1.0"))
    upgrades.change(ports, "beta", refused_policy=None)  # as the hourly look does, where it fits

    for _ in range(2):
        moves.take_up(ports, "beta", "demo-sku", *PLAN)

    assert len(receipts(ports, "policy_rollback", "beta")) == 2
    assert receipts(ports, "receipt_conflict", "beta") == []
