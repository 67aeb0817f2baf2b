"""Runbook 7: what a cancellation drains, proves, archives and ends."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cli.audit.verify_archive import Against, verify_archive
from governor import actions as rules
from governor import paths
from governor.actions import Action
from governor.errors import ConflictError, DeniedError, InputError, OutageError
from governor.fsm import EntitlementState, GovernorState, RunState
from governor.health import Fault as StoreFault
from governor.quota import Verdict
from governor.runs import Run
from ledger import contracts
from ledger.keys import fingerprint
from ports import Ports
from ports.documents import Create, Query, Update
from ports.signals import Signals, Topic
from ports.slots import Request
from tasks.actions import storing, transitions
from tasks.actions.admit import Signal, submit
from tasks.actions.execute import execute
from tasks.actions.operators import resolve
from tasks.actions.recover import roll_back
from tasks.archives import segments
from tasks.archives.judge import judge_archive
from tasks.governors import policies
from tasks.ledgers.seal import seal_ledger
from tasks.receipts import spool
from tasks.runbooks import RUNBOOKS
from tasks.runs import operators
from tests.engine.conftest import close, event, on_both
from tests.support import cancel
from tests.support.cancel import accept, act, told
from tests.support.faults import Fault, Writes, outage
from tests.support.health import failing, keep_lease
from tests.support.ledgers import emit
from tests.support.runs import (
    ACCOUNT,
    everything_is_there,
    has_key,
    later,
    memory_knows,
    operations,
    receipts,
    run_of,
    subscribe,
    text_of,
)
from tests.support.stores import Stores

VERIFY = Path(__file__).parents[3] / "ledger" / "auditor" / "verify.py"


@pytest.fixture
def subscribed(ports: Ports) -> Ports:
    """Ports under a clock that can be moved, with a governor."""
    ports = later(ports)
    subscribe(ports, event())
    return ports


def _complete(ports: Ports) -> dict[str, object]:
    (found,) = cancel.of_kind(ports, "decommission_complete")
    return found


def _archive(ports: Ports, receipt: dict[str, object], folder: Path) -> Path:
    name = str(receipt["archive_gcs_path"]).rpartition(f"{ACCOUNT}/")[2]
    path = folder / name
    path.write_bytes(ports.archives.get(f"{ACCOUNT}/{name}") or b"")
    return path


def _is_over(ports: Ports) -> bool:
    return (
        memory_knows(ports, ACCOUNT) is Verdict.UNKNOWN_TENANT
        and not has_key(ports, ACCOUNT)
        and ports.signals.look(ACCOUNT, "us-central1") is Topic.ABSENT
        and cancel.tenant(ports).state is GovernorState.DECOMMISSIONED
        and cancel.entitlement(ports).state is EntitlementState.DECOMMISSIONED
        and ports.documents.get(paths.turn_path(f"account/{ACCOUNT}")) is None
    )


def _verified(
    ports: Ports, folder: Path, paths: Sequence[Path], complete: Path, first: int
) -> tuple[list[str], int]:
    """What our verifier finds, and the exit code of the one in every archive."""
    trust = folder / "keys.json"
    trust.write_text(ports.keys.ring().model_dump_json(exclude_none=True))
    against = Against(trust, account_id=ACCOUNT, complete=complete, begins_at=first)
    findings = verify_archive(*paths, against=against).report.findings
    keys = [w for key in ports.keys.ring() for w in ("--fingerprint", fingerprint(key.key))]
    more = ["--complete", complete, "--from", str(first)]
    command = [sys.executable, "-I", VERIFY, *keys, *more, *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return [f"{f.subject}: {f.fault}" for f in findings], done.returncode


def _publish_other_sku(ports: Ports) -> None:
    ours = ports.objects.get("policies/demo-sku/starter/1.0.0.json") or b""
    policies.register(ports, ours.replace(b'"demo-sku"', b'"other-sku"'))


@on_both
def test_a_governor_is_drained_archived_and_ended(subscribed: Ports, tmp_path: Path) -> None:
    ports = subscribed
    act(ports, "s-1")
    act(ports, "s-2", "demo.fail", recoverable=False)

    run = cancel.to_the_end(ports, cancel.play(ports, told("cancelled")).run_id)

    assert run.state is RunState.COMPLETE
    assert _is_over(ports)
    complete = _complete(ports)
    assert run.receipt_id == complete["receipt_id"]
    assert complete["governor"] == "decommissioned"
    assert complete["actions_accepted"] == 2
    path = _archive(ports, complete, tmp_path)
    report = judge_archive(path, ports.keys.ring(), ACCOUNT).report
    assert report.is_valid
    assert report.sealed == complete["receipts_archived"] == complete["checkpoint_size"]
    assert report.tree
    assert report.tree.root.hex() == complete["checkpoint_root"]
    beside = ports.archives.get(f"{ACCOUNT}/{path.name.removesuffix('.tar.gz')}.complete.json")
    assert json.loads(beside or b"")["archived_size"] == report.sealed


def test_a_stranger_verifies_the_end_beside_its_archive(subscribed: Ports, tmp_path: Path) -> None:
    ports = subscribed
    for number in range(8):
        act(ports, f"s-{number}")
        assert seal_ledger(ports, ACCOUNT)
    segment = segments.cut_next(ports, ACCOUNT, 5)
    assert segment
    run = cancel.up_to(ports, told("cancelled"), "complete")
    ports.keys.rotate(ports.clock.now())  # between the archive and the receipt that names it
    emit(ports, "beside", account_id=ACCOUNT)
    run = cancel.to_the_end(ports, run.run_id)
    assert run.state is RunState.COMPLETE
    end = _complete(ports)
    assert [(s["first"], s["size"]) for s in end["segments"]] == [(0, segment.size)]  # type: ignore[attr-defined]

    first = tmp_path / "segment.tar.gz"
    first.write_bytes(ports.archives.get(segment.name) or b"")
    rest = _archive(ports, end, tmp_path)
    beside = str(end["archive_gcs_path"]).rpartition("/")[2].replace(".tar.gz", ".complete.json")
    proof = json.loads(ports.archives.get(f"{ACCOUNT}/{beside}") or b"")
    complete = tmp_path / "complete.json"
    for changed, archives, well in (
        ({}, [first, rest], True),
        ({}, [rest], True),
        ({}, [first], False),
        ({"archived_size": 3}, [rest], False),
        ({"leaf": proof["leaf"].replace('"index":', '"index":1')}, [rest], False),
        ({"inclusion_proof": proof["inclusion_proof"][1:]}, [rest], False),
        ({"consistency_proof": [*proof["consistency_proof"][::-1], "0" * 64]}, [rest], False),
        ({"receipt": {**proof["receipt"], "payload": "e30="}}, [rest], False),
        ({"checkpoint": proof["checkpoint"].replace("\n", "\n1", 1)}, [rest], False),
        ({"checkpoint": None}, [rest], False),
        ({"keys": {**proof["keys"], "keys": []}}, [rest], False),
    ):
        complete.write_text(json.dumps({**proof, **changed}))
        begins = 0 if archives[0] == first else segment.size
        findings, code = _verified(ports, tmp_path, archives, complete, begins)
        assert (not findings, code) == (well, 0 if well else 1), (changed, findings)


def test_its_signals_are_refused_at_once_and_unknown_in_the_end(subscribed: Ports) -> None:
    run = cancel.up_to(subscribed, told("cancelled"), "actions")
    with pytest.raises(OutageError, match="takes no new actions") as refused:
        accept(subscribed, "s-1")
    assert refused.value.code == Verdict.DRAINING

    cancel.to_the_end(subscribed, run.run_id)

    with pytest.raises(InputError, match="no governor"):
        accept(subscribed, "s-1")


def test_an_answer_given_before_stays_the_answer(subscribed: Ports) -> None:
    action_id = act(subscribed, "s-1")

    cancel.to_the_end(subscribed, cancel.play(subscribed, told("cancelled")).run_id)

    assert accept(subscribed, "s-1") == action_id


def test_what_was_in_flight_is_what_has_ended(subscribed: Ports) -> None:
    ports = subscribed
    act(ports, "before")
    left = [
        accept(ports, "succeeds"),
        accept(ports, "fails", "demo.fail", recoverable=False),
        accept(ports, "sleeps", "demo.sleep", seconds=30),
        accept(ports, "is-never-begun"),
    ]
    run = cancel.play(ports, told("cancelled"))
    assert cancel.is_waited_for(ports, run.run_id)
    for action_id in left[:3]:
        execute(ports, ACCOUNT, action_id)
    assert cancel.is_waited_for(ports, run.run_id)

    run = cancel.to_the_end(ports, run.run_id)

    assert cancel.of_kind(ports, "decommission_start")[0]["in_flight_actions"] == 4
    complete = _complete(ports)
    assert [complete[f"actions_{each}"] for each in ("completed", "failed", "timed_out")] == [
        1,
        1,
        2,
    ]
    assert complete["actions_accepted"] == 5
    assert cancel.action(ports, left[3]).error_code == rules.DRAINED
    ends = ("action_complete", "action_failed", "action_timeout")
    assert len([each for each in operations(ports) if each in ends]) == 5


def test_a_handler_that_outlasts_the_drain_is_stopped_and_undone(subscribed: Ports) -> None:
    ports = subscribed
    action_id = accept(ports, "hangs", "demo.sleep", seconds=30)
    held = cancel.action(ports, action_id)
    found = ports.documents.get(paths.action_path(ACCOUNT, action_id))
    assert found
    gone = ports.processes.claim(ports.clock.now()).evolve(pid=2**22 - 3, process_started=1.0)
    running = held.evolve(state="running", claim=gone, queue_ms=1)
    ports.documents.commit([Update(found.path, running.document(), found.revision)])
    run = cancel.play(ports, told("cancelled"))
    ports.clock.sleep(31)

    run = cancel.carry_on(ports, run.run_id)

    assert cancel.action(ports, action_id).state == "rolling_back"
    assert cancel.is_waited_for(ports, run.run_id)
    roll_back(ports, ACCOUNT, action_id)
    cancel.to_the_end(ports, run.run_id)
    assert _complete(ports)["actions_timed_out"] == 1
    assert "action_rolled_back" in operations(ports)


def test_a_rollback_that_keeps_failing_is_reported_once_and_holds_the_archive(
    subscribed: Ports,
) -> None:
    ports = subscribed
    action_id = act(ports, "s-1", "demo.rollback_fails", times=99)
    run = cancel.play(ports, told("cancelled"))
    for _ in range(60):
        ports.clock.sleep(1)
        if not cancel.is_waited_for(ports, run.run_id):
            cancel.carry_on(ports, run.run_id)

    assert [r["error_code"] for r in cancel.of_kind(ports, "decommission_failed")] == [
        "ROLLBACK_PENDING"
    ]
    assert not list(ports.archives.names(f"{ACCOUNT}/"))
    assert has_key(ports, ACCOUNT)
    resolve(ports, ACCOUNT, action_id, "op", "undone by hand")
    cancel.to_the_end(ports, run.run_id)
    assert _is_over(ports)
    complete = _complete(ports)
    assert (complete["in_flight_actions"], complete["actions_failed"]) == (1, 1)
    assert len(cancel.of_kind(ports, "decommission_failed")) == 1


def test_only_the_entitlement_named_is_cancelled(subscribed: Ports) -> None:
    ports = subscribed
    _publish_other_sku(ports)
    subscribe(ports, event(event_id="e-2", sku_id="other-sku"))
    run = cancel.up_to(ports, told("cancelled"), "actions")
    with pytest.raises(OutageError, match="takes no new actions"):
        submit(ports, Signal(ACCOUNT, "s-0", "demo.succeed", "demo-sku", {}))
    submit(ports, Signal(ACCOUNT, "s-1", "demo.succeed", "other-sku", {}))

    cancel.to_the_end(ports, run.run_id)

    complete = _complete(ports)
    assert complete["governor"] == "kept"
    assert complete["in_flight_actions"] == 0
    accept(ports, "s-2")  # one entitlement is left, so that none need be named
    with pytest.raises(DeniedError):
        submit(ports, Signal(ACCOUNT, "s-3", "demo.succeed", "demo-sku", {}))
    assert cancel.tenant(ports).state is GovernorState.STABLE
    assert has_key(ports, ACCOUNT)
    assert ports.signals.look(ACCOUNT, "us-central1") is Topic.READY

    last = told("cancelled", 9, sku_id="other-sku")
    cancel.to_the_end(ports, cancel.play(ports, last).run_id)

    ends = cancel.of_kind(ports, "decommission_complete")
    assert [each["governor"] for each in ends] == ["kept", "decommissioned"]
    assert cancel.tenant(ports).state is GovernorState.DECOMMISSIONED
    assert not has_key(ports, ACCOUNT)


def test_a_resubscription_has_a_new_governor_and_key_on_the_same_ledger(
    subscribed: Ports, tmp_path: Path
) -> None:
    ports = subscribed
    act(ports, "s-1")
    former = (ports.secrets._folder / "tenants" / "acme.key").read_text()  # type: ignore[attr-defined]
    cancel.to_the_end(ports, cancel.play(ports, told("cancelled")).run_id)

    subscribe(ports, told("created", 10))

    assert everything_is_there(ports)
    assert cancel.tenant(ports).fsm_id == "governor-acme-g2"
    assert (ports.secrets._folder / "tenants" / "acme.key").read_text() != former  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="former subscription"):
        submit(ports, Signal(ACCOUNT, "s-2", "demo.succeed", None, {}, generation=1))
    execute(
        ports,
        ACCOUNT,
        submit(ports, Signal(ACCOUNT, "s-3", "demo.succeed", None, {}, generation=2)),
    )
    cancel.to_the_end(ports, cancel.play(ports, told("cancelled", 20)).run_id)
    first, second = cancel.of_kind(ports, "decommission_complete")
    assert first["archive_gcs_path"] != second["archive_gcs_path"]
    assert (first["actions_accepted"], second["actions_accepted"]) == (1, 1)
    report = judge_archive(_archive(ports, second, tmp_path), ports.keys.ring(), ACCOUNT).report
    assert report.is_valid


def test_a_late_event_of_an_older_time_creates_nothing(subscribed: Ports) -> None:
    ports = subscribed
    cancel.to_the_end(ports, cancel.play(ports, told("cancelled", 30)).run_id)

    for late in (told("created", 1), told("plan_changed", 2), told("cancelled", 3)):
        assert cancel.play(ports, late).state is RunState.COMPLETE
        cancel.play(ports, late)

    assert [r["reason"] for r in cancel.of_kind(ports, "event_ignored")] == ["stale"] * 3
    assert _is_over(ports)


def test_a_second_cancellation_finds_it_ended(subscribed: Ports) -> None:
    cancel.to_the_end(subscribed, cancel.play(subscribed, told("cancelled")).run_id)

    again = cancel.play(subscribed, told("cancelled", 9))

    assert again.state is RunState.COMPLETE
    assert [r["reason"] for r in cancel.of_kind(subscribed, "event_ignored")] == ["ended"]
    assert len(cancel.of_kind(subscribed, "decommission_start")) == 1


def test_a_cancellation_that_overtakes_its_subscription_is_remembered(ports: Ports) -> None:
    run = cancel.play(ports, told("cancelled", 30))
    late = cancel.play(ports, told("created", 1))

    assert (run.state, late.state) == (RunState.COMPLETE, RunState.COMPLETE)
    assert [r["reason"] for r in cancel.of_kind(ports, "event_ignored")] == [
        "no-entitlement",
        "stale",
    ]
    assert ports.documents.get(paths.tenant_path(ACCOUNT)) is None
    subscribe(ports, told("created", 40))
    assert everything_is_there(ports)


def test_a_cancellation_of_another_sku_is_refused_for_good(subscribed: Ports) -> None:
    run = cancel.play(subscribed, told("cancelled", entitlement_id="demo-sku", sku_id="other"))

    assert (run.state, run.error_code) == (RunState.REFUSED, "entitlement-of-another-sku")
    assert everything_is_there(subscribed)
    assert [r["error_code"] for r in cancel.of_kind(subscribed, "decommission_failed")] == [
        "entitlement-of-another-sku"
    ]


def test_the_customers_reason_lies_beside_the_ledger(subscribed: Ports) -> None:
    reason = "too expensive, says Mrs Doe"
    cancel.to_the_end(
        subscribed, cancel.play(subscribed, told("cancelled", cancellation_reason=reason)).run_id
    )

    (start,) = cancel.of_kind(subscribed, "decommission_start")
    assert reason not in json.dumps(receipts(subscribed))
    assert text_of(subscribed, {**start, "error_sha256": start["reason_sha256"]}) == reason


ODD = [
    b'{"signal_id": "odd", "type": "demo.succeed", "payload": {"a": NaN}}',
    b'{"signal_id": "odd", "type": "demo.succeed", "payload": {"a": 1e999}}',
    b'{"signal_id": "odd", "type": "demo.succeed", "payload": {"a": 9007199254740993}}',
    b'{"signal_id": "odd", "type": "demo.succeed", "payload": {"a": "\\ud800"}}',
]
"""Signals that have no canonical JSON."""


@on_both
def test_what_is_left_on_the_topic_is_counted_and_receipted(subscribed: Ports) -> None:
    ports = subscribed
    act(ports, "accepted")
    ports.signals.stop_pushing(ACCOUNT)
    for n in range(7):
        ports.signals.publish(ACCOUNT, json.dumps({"signal_id": f"left-{n}"}).encode())
    accepted = {"signal_id": "accepted", "type": "demo.succeed", "payload": {}}
    other = {**accepted, "payload": {"seats": 7}}  # another signal of that id was never accepted
    ports.signals.publish(ACCOUNT, json.dumps(accepted).encode())
    ports.signals.publish(ACCOUNT, json.dumps(other).encode())
    for odd in (b"\xff no JSON", *ODD):
        ports.signals.publish(ACCOUNT, odd)

    run = cancel.up_to(ports, told("cancelled"), "latecomers")
    ports.signals.publish(ACCOUNT, b"published while the archive was made")
    cancel.to_the_end(ports, run.run_id)

    complete = _complete(ports)
    unknown = None if ports.signals.lets_rest else 0  # what rests after a push may be there still
    assert (complete["signals_refused"], complete.get("undelivered_unknown")) == (14, unknown)
    assert sum(r["by_reason"]["draining"] for r in cancel.of_kind(ports, "signals_refused")) == 14
    assert ports.signals.look(ACCOUNT, "us-central1") is Topic.ABSENT


class _Deaf:
    """Topics whose deletion lands, and is not answered."""

    def __init__(self, inner: Signals) -> None:
        self._inner = inner

    def delete(self, account_id: str) -> None:
        self._inner.delete(account_id)
        raise OutageError("injected", "the deletion landed")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@on_both
def test_what_was_deleted_unread_is_never_told_as_nothing(subscribed: Ports) -> None:
    run = cancel.up_to(subscribed, told("cancelled"), "resources")
    subscribed.signals.publish(ACCOUNT, b"published after the last look")

    cancel.carry_on(dataclasses.replace(subscribed, signals=_Deaf(subscribed.signals)), run.run_id)  # type: ignore[arg-type]
    cancel.to_the_end(subscribed, run.run_id)

    assert _complete(subscribed).get("undelivered_unknown") is None


@pytest.mark.parametrize("step", ["start", "signals", "archive", "resources", "complete", "proof"])
def test_a_step_that_finds_its_objects_gone_goes_on(subscribed: Ports, step: str) -> None:
    ports = subscribed
    act(ports, "s-1")
    run = cancel.up_to(ports, told("cancelled"), step)
    ports.signals.delete(ACCOUNT)
    ports.secrets.withdraw_tenant_key(ACCOUNT)
    ports.memory.forget(ACCOUNT, ports.memory.begin_boot())
    if step in ("complete", "proof"):
        shutil.rmtree(Path(ports.archives._root) / ACCOUNT)  # type: ignore[attr-defined]

    run = cancel.to_the_end(ports, run.run_id)

    assert run.state is RunState.COMPLETE
    assert _is_over(ports)
    assert len(cancel.of_kind(ports, "decommission_complete")) == 1


def test_an_archive_bucket_that_is_down_is_waited_for_and_reported(subscribed: Ports) -> None:
    def create(*_: object) -> bool:
        raise OutageError("objects-unavailable", "the bucket does not answer")

    down = dataclasses.replace(
        subscribed,
        archives=type("Down", (), {"create": create, "get": create, "address": _address})(),
    )
    run = cancel.play(down, told("cancelled"))
    for _ in range(2):
        run = cancel.carry_on(down, run.run_id)
        down.clock.sleep(120)  # type: ignore[attr-defined]
    assert cancel.of_kind(down, "decommission_failed") == []
    for _ in range(2):
        run = cancel.carry_on(down, run.run_id)
        down.clock.sleep(120)  # type: ignore[attr-defined]

    (failed,) = cancel.of_kind(down, "decommission_failed")
    assert (failed["failed_step"], failed["error_code"]) == (
        "customer_cancels.archive",
        "objects-unavailable",
    )
    assert _is_untouched(down)
    assert cancel.to_the_end(subscribed, run.run_id).state is RunState.COMPLETE
    assert _is_over(subscribed)


def _address(_self: object, name: str) -> str:
    return f"gs://bucket/{name}"


def _is_untouched(ports: Ports) -> bool:
    return (
        has_key(ports, ACCOUNT) and ports.signals.look(ACCOUNT, "us-central1") is not Topic.ABSENT
    )


def test_a_ledger_that_does_not_hold_is_not_archived_and_nothing_is_deleted(
    subscribed: Ports,
) -> None:
    ports = subscribed
    act(ports, "s-1")
    run = cancel.up_to(ports, told("cancelled"), "archive")
    victim = ports.documents.scan(Query(f"tenants/{ACCOUNT}/receipts", limit=1))[0]
    spoilt = {**victim.data, "payload": victim.data["payload"].replace("acme", "evil")}
    ports.documents.commit([Update(victim.path, spoilt, victim.revision)])

    run = cancel.carry_on(ports, run.run_id)

    found = ports.documents.scan(Query(f"tenants/{ACCOUNT}/receipts", where=[], limit=100))
    failed = [d.data for d in found if '"operation":"decommission_failed"' in d.data["payload"]]
    assert len(failed) == 1
    assert "ledger-broken" in failed[0]["payload"]
    assert not list(ports.archives.names(f"{ACCOUNT}/"))
    assert has_key(ports, ACCOUNT)
    assert run.state is RunState.RUNNING


def test_a_cancellation_that_drains_cannot_be_undone(subscribed: Ports) -> None:
    run = cancel.up_to(subscribed, told("cancelled"), "start")

    with pytest.raises(ConflictError, match="cannot be undone"):
        operators.cancel(subscribed, RUNBOOKS, run.run_id, "op", "a mistake")

    cancel.to_the_end(subscribed, run.run_id)
    assert _is_over(subscribed)


def test_a_cancellation_that_has_not_begun_to_drain_can_be_undone(subscribed: Ports) -> None:
    run = cancel.up_to(subscribed, told("cancelled"), "drain")
    operators.cancel(subscribed, RUNBOOKS, run.run_id, "op", "a mistake")

    run = cancel.to_the_end(subscribed, run.run_id)

    assert run.state is RunState.CANCELLED
    assert everything_is_there(subscribed)


def test_a_signal_on_its_way_when_the_door_is_shut_is_waited_for(subscribed: Ports) -> None:
    ports = subscribed
    action_id = paths.action_id(ACCOUNT, "s-1")
    ports.slots.admit(
        [Request(ACCOUNT, action_id, "demo.succeed", None, None, "a" * 64, "2026-11", 2000)]
    )

    run = cancel.play(ports, told("cancelled"))
    assert cancel.of_kind(ports, "decommission_start") == []
    stored = cancel.action(ports, _store_as_admitted(ports, action_id))

    run = cancel.to_the_end(ports, run.run_id)

    assert cancel.of_kind(ports, "decommission_start")[0]["in_flight_actions"] == 1
    assert stored.action_id == action_id
    assert _complete(ports)["actions_timed_out"] == 1


def _store_as_admitted(ports: Ports, action_id: str) -> str:
    """The document that an ingress was about to store."""
    template = Action(
        action_id=action_id,
        account_id=ACCOUNT,
        entitlement_id="demo-sku",
        sku_id="demo-sku",
        signal_id="s-1",
        signal_type="demo.succeed",
        signal_sha256="a" * 64,
        payload="{}",
        handler="demo.succeed",
        policy_version="1.0.0",
        timeout_ms=500,
        rollback_timeout_ms=100,
        queue_timeout_ms=15_000,
        recoverable=True,
        deadline_from_submit=False,
        accepted_at="2026-11-24T12:00:00.000000Z",
        month="2026-11",
    )
    ports.documents.commit([Create(paths.action_path(ACCOUNT, action_id), template.document())])
    return action_id


def test_a_memory_that_was_just_lost_cannot_say_that_nothing_lands(subscribed: Ports) -> None:
    class New:
        def __getattr__(self, name: str) -> object:
            return getattr(subscribed.memory, name)

        def remembers_s(self) -> float:
            return 1.0

    new = dataclasses.replace(subscribed, memory=New())  # type: ignore[arg-type]
    run = cancel.play(new, told("cancelled"))

    assert cancel.of_kind(subscribed, "decommission_start") == []
    assert cancel.to_the_end(subscribed, run.run_id).state is RunState.COMPLETE


def test_a_rollback_under_way_is_waited_for_without_an_alarm(subscribed: Ports) -> None:
    ports = subscribed
    action_id = act(ports, "s-1")
    held = transitions.load(ports, ACCOUNT, action_id)
    assert held
    rolling = held.action.evolve(state="rolling_back", rollback_attempts=1, ended_at=None)
    ports.documents.commit(
        [Update(transitions.path_of(rolling), rolling.document(), held.revision)]
    )

    run = cancel.play(ports, told("cancelled"))
    ports.clock.sleep(31)  # type: ignore[attr-defined]
    cancel.carry_on(ports, run.run_id)

    assert cancel.is_waited_for(ports, run.run_id)
    assert cancel.of_kind(ports, "decommission_failed") == []


def test_of_a_governor_that_is_another_nothing_is_removed(subscribed: Ports) -> None:
    ports = subscribed
    run = cancel.up_to(ports, told("cancelled"), "resources")
    found = ports.documents.get(paths.tenant_path(ACCOUNT))
    assert found
    other = {**found.data, "fsm_id": "governor-acme-g2", "state": "stable"}
    ports.documents.commit([Update(found.path, other, found.revision)])

    cancel.carry_on(ports, run.run_id)

    assert _is_untouched(ports)


def test_the_archive_of_an_account_called_spool_is_left_where_it_lies(ports: Ports) -> None:
    ports.archives.create("spool/2026-11-24.tar.gz", b"an archive")
    assert ports.spool.get("spool/2026-11-24.tar.gz") == b"an archive"  # the same bucket

    assert spool.drain(ports) == 0

    assert ports.archives.get("spool/2026-11-24.tar.gz") == b"an archive"


def test_an_event_behind_a_cancellation_that_takes_long_is_not_given_up(subscribed: Ports) -> None:
    ports = subscribed
    action_id = act(ports, "s-1", "demo.rollback_fails", times=99)
    first = cancel.play(ports, told("cancelled"))
    second = cancel.play(ports, told("created", 9, entitlement_id="second"))
    for _ in range(3):
        ports.clock.sleep(600)  # type: ignore[attr-defined]
        cancel.carry_on(ports, first.run_id)
        assert cancel.carry_on(ports, second.run_id).state is RunState.PENDING

    resolve(ports, ACCOUNT, action_id, "op", "undone by hand")
    assert cancel.to_the_end(ports, first.run_id).state is RunState.COMPLETE
    assert cancel.to_the_end(ports, second.run_id).state is RunState.COMPLETE


def test_two_workers_at_once_end_it_once(subscribed: Ports, stores: Stores) -> None:
    for number in range(5):
        act(subscribed, f"s-{number}")
    run = cancel.begin(subscribed, told("cancelled"), b"{}")

    def work(_: int) -> Run:
        mine = later(stores.open())
        try:
            return cancel.to_the_end(mine, run.run_id)
        finally:
            close(mine)

    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(work, range(2)))

    assert {end.state for end in ends} == {RunState.COMPLETE}
    assert _complete(subscribed)["actions_accepted"] == 5
    assert len(list(subscribed.archives.names(f"{ACCOUNT}/"))) == 2  # the archive, and its proof
    assert _is_over(subscribed)


@pytest.mark.parametrize("step", ["drain", "actions", "seal", "complete", "proof"])
def test_an_outage_in_the_middle_is_waited_for(subscribed: Ports, step: str) -> None:
    ports = subscribed
    act(ports, "s-1")
    run = cancel.up_to(ports, told("cancelled"), step)
    with suppress(OutageError):
        cancel.carry_on(failing(ports, StoreFault.REFUSE, ACCOUNT), run.run_id)

    assert run_of(ports, run.run_id).state is RunState.RUNNING
    ports.clock.sleep(20)  # type: ignore[attr-defined]
    assert cancel.to_the_end(ports, run.run_id).state is RunState.COMPLETE
    assert _is_over(ports)


@pytest.mark.parametrize("name", ["created", "plan_changed"])
def test_a_cancellation_behind_provisioning_or_a_plan_change_comes_after_it(
    ports: Ports, name: str
) -> None:
    ports = later(ports)
    if name == "plan_changed":
        subscribe(ports, event())
    changing = cancel.begin(ports, told(name, 1, plan_type="professional"), b"{}")
    leaving = cancel.begin(ports, told("cancelled", 2), b"{}")
    assert cancel.carry_on(ports, leaving.run_id).state is RunState.PENDING

    assert cancel.to_the_end(ports, changing.run_id).state is RunState.COMPLETE
    assert cancel.to_the_end(ports, leaving.run_id).state is RunState.COMPLETE

    assert _is_over(ports)
    assert operations(ports)[-1] == "decommission_complete"


def test_an_event_that_came_first_goes_first(subscribed: Ports) -> None:
    ports = subscribed
    running = cancel.begin(ports, told("renewed", 1), b"{}")
    created = told("created", 2).evolve(is_timed_by_arrival=True)
    waiting = cancel.begin(ports, created, b"{}")
    cancel.carry_on(ports, running.run_id)  # it ends; nobody has taken the next one up yet

    late = cancel.begin(ports, told("cancelled", 3).evolve(is_timed_by_arrival=True), b"{}")

    assert cancel.carry_on(ports, late.run_id).state is RunState.PENDING
    assert cancel.to_the_end(ports, waiting.run_id).state is RunState.COMPLETE
    assert cancel.to_the_end(ports, late.run_id).state is RunState.COMPLETE
    assert operations(ports)[-1] == "decommission_complete"


def test_a_signal_that_took_too_long_is_not_stored(
    subscribed: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "STORED_WITHIN_S", 0)

    with pytest.raises(OutageError, match="not stored in time"):
        accept(subscribed, "s-1")

    assert subscribed.documents.count(f"tenants/{ACCOUNT}/actions", []) == 0


def test_a_signal_whose_first_try_landed_is_accepted_although_the_second_is_late(
    subscribed: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer was lost, its process stood still, and its action has ended meanwhile."""

    class Unanswered:
        def __getattr__(self, name: str) -> Any:
            return getattr(subscribed.documents, name)

        def commit(self, writes: Sequence[Create]) -> list[str]:
            (write,) = writes
            if subscribed.documents.get(write.path) is not None:
                return subscribed.documents.commit(writes)
            subscribed.documents.commit([dataclasses.replace(write, by_s=None)])
            execute(subscribed, ACCOUNT, paths.action_id(ACCOUNT, "s-1"))
            raise OutageError("injected", "its answer is lost")

    monkeypatch.setattr(storing, "STORED_WITHIN_S", 0)
    told_id = accept(dataclasses.replace(subscribed, documents=Unanswered()), "s-1")  # type: ignore[arg-type]

    assert told_id == paths.action_id(ACCOUNT, "s-1")
    assert [e["action_id"] for e in cancel.of_kind(subscribed, "action_complete")] == [told_id]


def test_a_receipt_that_does_not_balance_breaks_its_contract(subscribed: Ports) -> None:
    act(subscribed, "s-1")
    cancel.to_the_end(subscribed, cancel.play(subscribed, told("cancelled")).run_id)
    fields = _complete(subscribed)

    contracts.validate(fields)
    with pytest.raises(InputError, match="were in flight"):
        contracts.validate({**fields, "actions_failed": 1})


@pytest.mark.parametrize(("fault", "first"), [("lost", 1), ("landed", 2)])
def test_whatever_write_fails_there_is_one_end_and_one_archive(
    subscribed: Ports, fault: Fault, first: int, pytestconfig: pytest.Config
) -> None:
    """A write of the run fails once, a later one each time, over as many subscriptions."""
    ports = subscribed
    every_so_many = 1 if pytestconfig.getoption("--thorough") else 3
    for rounds, at in enumerate(range(first, cancel.WRITES + 2, every_so_many), 1):
        keep_lease(ports)
        writes = Writes(at, fault, outage)
        act(ports, f"s-{at}")
        ports.signals.publish(ACCOUNT, json.dumps({"signal_id": f"left-{at}"}).encode())
        event_of = told("cancelled", event_id=f"c-{at}").evolve(event_time=_second(2 * rounds))
        try:
            run_id = cancel.play(cancel.observed(ports, writes), event_of).run_id
        except OutageError:
            run_id = paths.run_id(f"c-{at}")
            cancel.begin(ports, event_of, b"{}")
        run = cancel.to_the_end(ports, run_id)
        assert run.state is RunState.COMPLETE, (at, run)
        ends = cancel.of_kind(ports, "decommission_complete")
        assert [e["signals_refused"] for e in ends] == [1] * rounds
        assert [e["actions_accepted"] for e in ends] == [1] * rounds
        assert _is_over(ports)
        archives = [n for n in ports.archives.names(f"{ACCOUNT}/") if n.endswith(".tar.gz")]
        assert len(archives) == rounds
        assert (writes.count >= at) is (at <= cancel.WRITES)
        again = told("created", event_id=f"again-{at}")
        subscribe(ports, again.evolve(event_time=_second(2 * rounds + 1)))


def _second(number: int) -> str:
    return f"2026-11-25T12:{number // 60:02}:{number % 60:02}.000000Z"
