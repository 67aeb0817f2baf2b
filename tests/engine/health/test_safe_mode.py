"""Runbook 4: what checks find, what follows from it, and what is told of it."""

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from governor.errors import OutageError
from governor.fsm import ActionState, RunState
from governor.health import Drill, Fault, Scope
from governor.paths import action_path, run_path
from governor.quota import Verdict
from governor.runs import Run
from ledger.receipt import SignedReceipt
from ports import Ports, Times
from ports.documents import Query
from ports.slots import Slot
from tasks import ticks
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.health import check
from tasks.marketplace import begin
from tasks.receipts import spool
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tests.conftest import Valkey
from tests.engine.conftest import event, on_both
from tests.support.actions import action_of, later, look, operations, signal_of
from tests.support.faults import Watched, WatchedDocuments, Writes, outage
from tests.support.health import checked, failing, is_due, keep_lease, timed, watch_drilled
from tests.support.runs import carry_on, subscribe
from tests.support.waiting import until

STATUS = {
    Fault.REFUSE: {"UNAVAILABLE"},
    Fault.HANG: {"DEADLINE_EXCEEDED"},
    Fault.SLOW: {"DEADLINE_EXCEEDED"},
    Fault.DEAF: {"UNAVAILABLE"},
    Fault.QUOTA: {"RESOURCE_EXHAUSTED"},
    Fault.GARBAGE: {"DATA_LOSS", "ABORTED"},
    Fault.RANDOM: {
        "UNAVAILABLE",
        "DEADLINE_EXCEEDED",
        "RESOURCE_EXHAUSTED",
        "DATA_LOSS",
        "ABORTED",
    },
}


@pytest.fixture
def times() -> Times:
    return Times(health_interval_s=0.1, probe_interval_s=0.1, store_timeout_s=0.2)


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


def platform(ports: Ports, account_id: str = "_system") -> list[dict[str, Any]]:
    found = ports.documents.scan(
        Query(f"tenants/{account_id}/receipts", order_by="timestamp", limit=1000)
    )
    fields = [SignedReceipt.stored(d.data).fields() for d in found]
    told = ("degraded_mode", "degraded_mode_cleared", "alert_raised", "receipt_conflict")
    return [f for f in fields if f["operation"] in told]


def told_of(ports: Ports, account_id: str = "_system") -> list[str]:
    return [f["operation"] for f in platform(ports, account_id) if f["operation"] != "alert_raised"]


@on_both
@pytest.mark.parametrize("fault", Fault)
def test_three_checks_that_fail_in_a_row_have_everything_refused(
    ports: Ports, fault: Fault
) -> None:
    checked(ports)
    away = failing(ports, fault)

    checked(away, 2)
    assert not ports.memory.health(Scope.ALL).is_degraded
    checked(away)

    with pytest.raises(OutageError) as refused:
        submit(ports, signal_of("s"))
    assert refused.value.code == Verdict.DEGRADED
    checked(away, 2)
    assert spool.drain(ports) == 0
    (proof,) = [f for f in platform(ports) if f["operation"] == "degraded_mode"]
    assert proof["error_code"] in STATUS[fault]
    assert (proof["failure_count"], proof["affected_tenants"]) == (3, "all")
    assert proof["spooled"] is True


@on_both
def test_one_check_that_succeeds_is_enough_to_recover(ports: Ports) -> None:
    checked(ports)
    checked(failing(ports, Fault.REFUSE), 3)
    for n in range(7):
        with pytest.raises(OutageError):
            submit(ports, signal_of(f"s{n}"))

    checked(ports)

    assert submit(ports, signal_of("s0"))
    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"]
    cleared = platform(ports)[-1]
    cleared = next(f for f in platform(ports) if f["operation"] == "degraded_mode_cleared")
    assert cleared["actions_refused"] == 7
    assert cleared["reason"] == f"{ports.store_name}_recovered"
    assert 0 < cleared["downtime_seconds"] < 30
    alerts = [f for f in platform(ports) if f["operation"] == "alert_raised"]
    assert [a["severity"] for a in alerts] == ["critical", "info"]
    assert not ports.memory.owed(Scope.ALL)
    checked(ports, 3)
    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"]


def test_signals_the_store_did_not_take_are_counted_too(ports: Ports) -> None:
    checked(ports)
    away = failing(ports, Fault.REFUSE)
    checked(away, 1)
    for n in range(3):
        ports.memory.count("signals_refused:acme", "documents-unavailable", f"b{n}", "acme")
    ports.memory.count("signals_refused:acme", "documents-unavailable", "b0", "acme")  # told twice
    checked(away, 2)

    checked(ports)

    cleared = next(f for f in platform(ports) if f["operation"] == "degraded_mode_cleared")
    assert cleared["actions_refused"] == 3


def test_fewer_than_three_failures_change_nothing(ports: Ports) -> None:
    checked(ports)
    for _ in range(3):
        checked(failing(ports, Fault.REFUSE), 2)
        ports.memory.count("signals_refused:acme", "documents-unavailable", "b", "acme")
        assert submit(ports, signal_of("s"))
        checked(ports)

    assert not told_of(ports)
    health = ports.memory.health(Scope.ALL)
    assert (health.failures, health.refused, health.error_code) == (0, {}, "")


def test_a_store_that_comes_and_goes_is_believed_anew_each_time(ports: Ports) -> None:
    checked(ports)
    for _ in range(3):
        checked(failing(ports, Fault.HANG), 3)
        checked(ports)

    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"] * 3


def test_nothing_is_admitted_before_the_spool_is_drained(ports: Ports) -> None:
    checked(ports)
    action_id = submit(ports, signal_of("s"))
    documents = WatchedDocuments(ports.documents, Writes(2, "lost", lambda: None))
    running = dataclasses.replace(ports, documents=Watched(documents, _Later(), "commit"))  # type: ignore[arg-type]
    execute(running, "acme", action_id)
    checked(failing(ports, Fault.REFUSE), 3)
    unlistable = dataclasses.replace(ports, spool=Watched(ports.spool, _Always(), "names"))  # type: ignore[arg-type]

    checked(unlistable, 2)

    assert ports.memory.standing("acme") is Verdict.DEGRADED
    checked(ports)
    assert ports.memory.standing("acme") is Verdict.ADMITTED
    assert operations(ports, action_id) == ["action_complete"]


class _Always(Writes):
    """Every call fails."""

    def __init__(self) -> None:
        super().__init__(0, "lost", outage)

    def write(self, carry_out: Any) -> Any:
        raise OutageError("injected", "no answer")


class _Later(Writes):
    """Every call but the first fails."""

    def __init__(self) -> None:
        super().__init__(0, "lost", outage)

    def write(self, carry_out: Any) -> Any:
        self.count += 1
        if self.count > 1:
            raise OutageError("injected", "no answer")
        return carry_out()


def test_what_waits_in_the_queue_is_not_begun_and_goes_on_afterwards(ports: Ports) -> None:
    checked(ports)
    soon, late = submit(ports, signal_of("soon")), submit(ports, signal_of("late"))
    checked(failing(ports, Fault.QUOTA), 3)

    for action_id in (soon, late):
        execute(ports, "acme", action_id)  # the store would answer by now
        assert action_of(ports, action_id).state is ActionState.PENDING
    assert check.is_in_doubt(ports)

    checked(ports)
    assert not check.is_in_doubt(ports)
    execute(ports, "acme", soon)
    look(later(ports, 60), late)
    assert operations(ports, soon) == ["action_complete"]
    assert operations(ports, late) == ["action_timeout"]


def test_runs_rest_and_go_on_afterwards(ports: Ports) -> None:
    checked(ports)
    run_id = begin(ports, event(event_id="e-9", account_id="other"), b"{}").run_id
    checked(failing(ports, Fault.REFUSE), 3)

    carry_on(ports, RUNBOOK, run_id)

    found = ports.documents.get(run_path(run_id))
    assert found
    assert Run.stored(found.data).state is RunState.PENDING
    checked(ports)
    carry_on(ports, RUNBOOK, run_id)
    found = ports.documents.get(run_path(run_id))
    assert found
    assert Run.stored(found.data).state is RunState.COMPLETE


def test_a_lost_memory_during_an_outage_refuses_and_ends_with_both_receipts(
    ports: Ports, valkey: Valkey
) -> None:
    checked(ports)
    checked(failing(ports, Fault.REFUSE), 3)

    redis.Redis.from_url(valkey.url).flushdb()

    with pytest.raises(OutageError) as refused:
        submit(ports, signal_of("s"))
    assert refused.value.code == Verdict.NO_LEASE
    checked(ports)
    assert submit(ports, signal_of("s"))
    assert told_of(ports).count("degraded_mode") == 1
    cleared = [f for f in platform(ports) if f["operation"] == "degraded_mode_cleared"]
    assert sorted(f["reason"] for f in cleared) == ["memory_lost", "sqlite_recovered"]


def test_the_first_receipt_after_a_silence_says_who_was_silent(
    ports: Ports, caplog: pytest.LogCaptureFixture
) -> None:
    ports = timed(ports, lease_s=0.3)
    for seen_for_s, reason in ((60, "health_check_silent"), (0.05, "beat_silent")):
        ports.memory.beat_alive("ingress", 60)
        ports.memory.beat_alive("beat", 60)
        checked(ports)
        ports.memory.beat_alive("beat", seen_for_s)
        until(lambda: ports.memory.lease_left_s() == 0)
        ports.memory.beat_alive("beat", 60)  # it fires again, a moment before the check it fires
        with pytest.raises(OutageError):
            submit(ports, signal_of("s"))

        checked(ports)

        assert ports.memory.standing("acme") is Verdict.ADMITTED
        cleared = [f for f in platform(ports) if f["operation"] == "degraded_mode_cleared"][-1]
        assert (cleared["reason"], cleared["actions_refused"]) == (reason, 1)
    assert "ALERT degraded_mode_cleared" in caplog.text


@pytest.mark.parametrize("is_wiped", [False, True])
def test_a_lapse_lasts_until_signals_are_admitted_and_counts_all_it_refused(
    ports: Ports, valkey: Valkey, is_wiped: bool
) -> None:
    ports = timed(ports, lease_s=0.5)
    ports.memory.beat_alive("ingress", 60)
    checked(ports)
    if is_wiped:
        redis.Redis.from_url(valkey.url).flushdb()
    until(lambda: ports.memory.lease_left_s() == 0)

    def refuse() -> None:
        for n in range(3):
            with pytest.raises(OutageError):
                submit(ports, signal_of(f"s{n}"))

    def refuse_slowly() -> None:
        time.sleep(0.4)  # a store that takes its time
        refuse()

    refuse()
    memory = Beside(ports.memory, "create_lease" if is_wiped else "beat_alive", refuse_slowly)
    slowly = dataclasses.replace(ports, memory=memory, spool=Beside(ports.spool, "names", refuse))  # type: ignore[arg-type]
    checked(slowly)

    assert ports.memory.standing("acme") is Verdict.ADMITTED
    (cleared,) = [f for f in platform(ports) if f["operation"] == "degraded_mode_cleared"]
    assert cleared["actions_refused"] == 9
    assert cleared["downtime_seconds"] >= 0.4


def test_two_checks_beside_each_other_that_find_memory_lost_tell_of_one_outage(
    ports: Ports, valkey: Valkey
) -> None:
    checked(ports)
    redis.Redis.from_url(valkey.url).flushdb()

    other = dataclasses.replace(ports, memory=Beside(ports.memory, "begin_rebuild", lambda: None))  # type: ignore[arg-type]
    meanwhile = Beside(ports.memory, "owe", lambda: checked(other))
    checked(dataclasses.replace(ports, memory=meanwhile))  # type: ignore[arg-type]

    assert told_of(ports) == ["degraded_mode_cleared"]


def test_the_very_first_check_tells_of_no_outage(ports: Ports, valkey: Valkey) -> None:
    redis.Redis.from_url(valkey.url).flushdb()

    checked(ports)

    assert ports.memory.standing("acme") is Verdict.ADMITTED
    assert not told_of(ports)


@pytest.mark.parametrize("fault", ["lost", "landed"])
def test_a_recovery_that_is_not_receipted_at_once_is_receipted_once(
    ports: Ports, fault: Any
) -> None:
    checked(ports)
    checked(failing(ports, Fault.REFUSE), 3)
    with pytest.raises(OutageError):
        submit(ports, signal_of("s"))

    class Unwell(Writes):
        def __init__(self) -> None:
            super().__init__(0, fault, outage)

        def write(self, carry_out: Any) -> Any:
            self.count += 1
            if self.count <= 2:  # the probe, and the spooled beginning
                return carry_out()
            if fault == "landed":
                carry_out()
            raise OutageError("injected", "no answer")

    unwell = dataclasses.replace(ports, documents=WatchedDocuments(ports.documents, Unwell()))  # type: ignore[arg-type]
    try:
        checked(unwell)
    except OutageError:
        assert fault == "lost"

    assert submit(ports, signal_of("s"))
    checked(ports)
    checked(ports)
    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"]
    cleared = next(f for f in platform(ports) if f["operation"] == "degraded_mode_cleared")
    assert cleared["actions_refused"] == 1


def test_an_outage_with_no_spool_is_receipted_once_there_is_one(ports: Ports) -> None:
    checked(ports)
    nowhere = dataclasses.replace(
        failing(ports, Fault.REFUSE), spool=Watched(ports.spool, _Always(), "create", "names")
    )  # type: ignore[arg-type]
    checked(nowhere, 4)
    assert ports.memory.standing("acme") is Verdict.DEGRADED
    checked(failing(ports, Fault.REFUSE))

    checked(ports)

    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"]


def test_a_drill_of_some_tenants_refuses_those_alone(ports: Ports) -> None:
    checked(ports)
    subscribe(ports, event(event_id="e-2", account_id="other"))
    drill = Drill(drill_id="d1", fault=Fault.REFUSE, accounts=["acme"])
    assert ports.memory.begin_drill(drill, 60)
    away = failing(ports, Fault.REFUSE, "acme")
    for _ in range(3):
        until(lambda: _drilled_check(away))
    keep_lease(away)

    with pytest.raises(OutageError) as refused:
        submit(ports, signal_of("s"))
    assert refused.value.code == Verdict.DEGRADED
    assert submit(ports, Signal("other", "s", "demo.succeed", None, {}))
    ports.memory.end_drill("d1")
    until(lambda: _drilled_check(ports))

    assert submit(ports, signal_of("s"))
    for ledger in ("_system", "acme"):
        assert told_of(ports, ledger) == ["degraded_mode", "degraded_mode_cleared"]
        assert all(f["drill"] for f in platform(ports, ledger))
        begun, *_ = (f for f in platform(ports, ledger) if f["operation"] == "degraded_mode")
        assert begun["affected_tenants"] == ["acme"]
        ended, *_ = (
            f for f in platform(ports, ledger) if f["operation"] == "degraded_mode_cleared"
        )
        assert ended["actions_refused"] == 1
    assert not told_of(ports, "other")


def _drilled_check(ports: Ports) -> bool:
    before = ports.memory.health(Scope.SOME)
    watch_drilled(ports)
    return ports.memory.health(Scope.SOME) != before


def test_a_drill_that_becomes_a_real_outage_is_told_so(
    ports: Ports, caplog: pytest.LogCaptureFixture
) -> None:
    checked(ports)
    assert ports.memory.begin_drill(Drill(drill_id="d1", fault=Fault.REFUSE), 60)
    checked(failing(ports, Fault.REFUSE), 3)
    ports.memory.end_drill("d1")

    checked(failing(ports, Fault.HANG), 2)

    assert caplog.text.count("fail in truth") == 1
    checked(ports)
    marks = {
        f["operation"]: f.get("drill") for f in platform(ports) if f["operation"] != "alert_raised"
    }
    assert marks == {"degraded_mode": True, "degraded_mode_cleared": None}


def test_two_checkers_at_once_count_each_check_once(ports: Ports) -> None:
    checked(ports)
    away = failing(ports, Fault.REFUSE)
    until(lambda: is_due(ports))
    for _ in range(10):
        keep_lease(timed(away, health_interval_s=30))

    assert ports.memory.health(Scope.ALL).failures == 1


def test_a_fault_of_ours_in_a_check_is_a_failed_check(ports: Ports) -> None:
    class Broken:
        def get(self, path: str) -> Any:
            raise KeyError("a bug")

        def __getattr__(self, name: str) -> Any:
            return getattr(ports.documents, name)

    checked(dataclasses.replace(ports, documents=Broken()), 3)  # type: ignore[arg-type]

    assert ports.memory.standing("acme") is Verdict.DEGRADED
    assert ports.memory.health(Scope.ALL).error_code == "INTERNAL"


def test_a_check_that_is_slow_is_cut_short(ports: Ports) -> None:
    checked(ports)
    began = time.monotonic()
    with pytest.raises(OutageError) as slow:
        check.probe(failing(ports, Fault.SLOW), "health/probe", 0.2)

    assert slow.value.code == "documents-slow"
    assert time.monotonic() - began < 0.4 + 0.1


def test_an_outage_of_both_stores_that_ends_at_once_is_receipted_whole(ports: Ports) -> None:
    checked(ports)
    nowhere = dataclasses.replace(
        failing(ports, Fault.REFUSE), spool=Watched(ports.spool, _Always(), "create", "names")
    )  # type: ignore[arg-type]
    checked(nowhere, 4)

    checked(ports)

    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"]
    alerts = [f for f in platform(ports) if f["operation"] == "alert_raised"]
    assert sorted(a["severity"] for a in alerts) == ["critical", "info"]


def test_while_another_rebuilds_nothing_is_receipted_and_nothing_is_admitted(
    ports: Ports, valkey: Valkey
) -> None:
    checked(ports)
    redis.Redis.from_url(valkey.url).flushdb()
    era = ports.memory.begin_rebuild(60)
    assert era

    checked(ports, 3)

    assert ports.memory.standing("acme") is Verdict.NO_LEASE
    assert not told_of(ports)
    ports.memory.continue_rebuild(era, 0)
    checked(ports)
    assert ports.memory.standing("acme") is Verdict.ADMITTED
    assert told_of(ports) == ["degraded_mode_cleared"]


def test_a_real_outage_of_everybody_is_no_drill_because_some_tenant_has_one(ports: Ports) -> None:
    checked(ports)
    assert ports.memory.begin_drill(Drill(drill_id="d1", fault=Fault.REFUSE, accounts=["acme"]), 60)
    checked(failing(ports, Fault.REFUSE), 3)
    checked(ports)

    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"]
    assert not [f for f in platform(ports) if f.get("drill")]


def test_a_check_that_began_in_a_drill_tells_of_no_real_outage(
    ports: Ports, caplog: pytest.LogCaptureFixture
) -> None:
    checked(ports)
    assert ports.memory.begin_drill(Drill(drill_id="d1", fault=Fault.HANG), 60)
    checked(failing(ports, Fault.HANG), 3)

    class Ends:
        """The drill is over while its last check hangs."""

        def get(self, path: str) -> Any:
            ports.memory.end_drill("d1")
            raise OutageError("injected", "hung", status="DEADLINE_EXCEEDED")

        def __getattr__(self, name: str) -> Any:
            return getattr(ports.documents, name)

    checked(dataclasses.replace(ports, documents=Ends()))  # type: ignore[arg-type]
    checked(ports)

    assert "fail in truth" not in caplog.text
    assert all(f["drill"] for f in platform(ports))


def test_an_outage_that_is_owed_keeps_its_own_figures_when_the_next_one_comes(
    ports: Ports,
) -> None:
    class Deaf(Writes):
        """The probe and the spooled beginning land; the receipt of the end does not."""

        def __init__(self) -> None:
            super().__init__(0, "lost", outage)

        def write(self, carry_out: Any) -> Any:
            self.count += 1
            if self.count <= 2:
                return carry_out()
            raise OutageError("injected", "no answer")

    checked(ports)
    checked(failing(ports, Fault.REFUSE), 3)
    for n in range(2):
        with pytest.raises(OutageError):
            submit(ports, signal_of(f"s{n}"))
    documents = WatchedDocuments(ports.documents, Deaf())
    with pytest.raises(OutageError):
        checked(dataclasses.replace(ports, documents=documents))  # type: ignore[arg-type]
    checked(failing(ports, Fault.REFUSE), 3)
    for n in range(5):
        with pytest.raises(OutageError):
            submit(ports, signal_of(f"s{n}"))
    checked(ports)

    cleared = [f for f in platform(ports) if f["operation"] == "degraded_mode_cleared"]
    assert sorted(f["actions_refused"] for f in cleared) == [2, 5]
    assert told_of(ports).count("degraded_mode") == 2
    assert all(f["downtime_seconds"] < 5 for f in cleared)


def test_one_tenants_drill_keeps_nobody_elses_actions_waiting(ports: Ports) -> None:
    checked(ports)
    subscribe(ports, event(event_id="e-2", account_id="other"))
    mine = submit(ports, signal_of("mine"))
    theirs = submit(ports, Signal("other", "theirs", "demo.succeed", None, {}))
    assert ports.memory.begin_drill(Drill(drill_id="d1", fault=Fault.REFUSE, accounts=["acme"]), 60)
    away = later(failing(ports, Fault.REFUSE, "acme"), 60)
    for account_id, action_id in (("acme", mine), ("other", theirs)):
        ports.memory.look_again(Slot(account_id, "demo-sku", action_id), -1)

    ticks.look(away)

    found = ports.documents.get(action_path("other", theirs))
    assert found
    assert found.data["state"] == "failed"
    assert action_of(ports, mine).state is ActionState.PENDING


@pytest.fixture(autouse=True)
def _alerts_are_heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, "ggen"):
        yield


class Beside:
    """A port on a real adapter; something is done before one of its calls, the first time."""

    def __init__(self, inner: object, name: str, first: Callable[[], object]) -> None:
        self._inner, self._name, self._first = inner, name, [first]

    def __getattr__(self, name: str) -> Any:
        if name == self._name and self._first:
            self._first.pop()()
        return getattr(self._inner, name)


def test_a_check_that_begins_in_the_middle_of_a_recovery_tells_of_no_second_outage(
    ports: Ports,
) -> None:
    ports = timed(ports, lease_s=0.5)
    checked(ports)
    checked(failing(ports, Fault.REFUSE), 3)
    until(lambda: not ports.memory.lease_left_s())
    is_probing, is_over = threading.Event(), threading.Event()

    def probe_slowly() -> None:
        is_probing.set()
        is_over.wait(10)

    slow = dataclasses.replace(ports, documents=Beside(ports.documents, "commit", probe_slowly))  # type: ignore[arg-type]
    second = threading.Thread(target=lambda: checked(slow))

    def begin_second() -> None:
        second.start()
        is_probing.wait(10)

    first = dataclasses.replace(ports, memory=Beside(ports.memory, "extend_lease", begin_second))  # type: ignore[arg-type]
    checked(first)
    is_over.set()
    second.join()

    assert is_probing.is_set()
    assert told_of(ports) == ["degraded_mode", "degraded_mode_cleared"]
