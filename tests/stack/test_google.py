"""The whole stack on Google's emulators: the same doors, the same promises, no channel before a fork."""

import signal
import time
from collections.abc import Iterator
from secrets import token_hex

import psutil
import pytest

from cli.stack.emulators import Emulator
from cli.stack.supervisor import processes
from tests.stack.conftest import Stack, new_stack
from tests.support.google import emulator, new_bucket
from tests.support.relay import Relay, relay
from tests.support.waiting import until

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def documents() -> Iterator[Emulator]:
    """A Firestore of this module's own, which it may freeze."""
    with emulator("firestore") as running:
        yield running


@pytest.fixture(scope="module")
def between(documents: Emulator) -> Iterator[Relay]:
    """The way to it, which may be cut."""
    with relay(documents.host) as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    between: Relay, pubsub: str, storage: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    project = f"p-{token_hex(6)}"
    running = new_stack(
        tmp_path_factory.mktemp("google"),
        GGEN_DOCUMENTS_URL=f"firestore://{project}",
        FIRESTORE_EMULATOR_HOST=between.host,
        GGEN_SIGNALS_URL=f"pubsub://{project}",
        PUBSUB_EMULATOR_HOST=pubsub,
        GGEN_OBJECTS_URL=f"gs://{new_bucket(storage)}",
        STORAGE_EMULATOR_HOST=storage,
        GGEN_PUSH_WITHOUT_TOKEN="true",
        GGEN_TALLY_INTERVAL_S="2",
        GGEN_HEALTH_INTERVAL_S="2",
        GGEN_PROBE_INTERVAL_S="0.5",
        GGEN_LEASE_S="8",
    )
    started = running.ggen("up", "--detach")
    assert started.returncode == 0, started.stderr
    yield running
    stopped = running.ggen("down")
    assert stopped.returncode == 0, stopped.stderr


def _ended(stack: Stack, account_id: str, signal_id: str, kind: str) -> str:
    """The state an action stays in."""
    answer = stack.signal(account_id, {"signal_id": signal_id, "type": kind, "payload": {}})
    assert answer.status_code == 202, answer.text

    def final() -> str:
        state = str(stack.read(answer.headers["Location"])["state"])
        return state if state in ("complete", "failed", "rolled_back") else ""

    return until(final)


def test_a_signal_comes_in_through_the_topic_and_the_ledger_holds(stack: Stack) -> None:
    receipt = stack.subscribe("pushed")
    assert receipt["resources"]["pubsub_topic"] == "tenants.pushed.signals"

    sent = stack.ggen("send-signal", "--account-id", "pushed", "--via", "topic")

    assert sent.returncode == 0, sent.stderr
    until(lambda: stack.receipts("pushed", operation="action_complete"))
    until(lambda: stack.ggen("verify-ledger", "--account-id", "pushed").returncode == 0)


def test_what_can_never_succeed_is_receipted_and_not_pushed_again(stack: Stack) -> None:
    stack.subscribe("hopeless")

    stack.ggen("send-signal", "--account-id", "hopeless", "--via", "topic", "--type", "no.such")

    (proof,) = until(lambda: stack.receipts("hopeless", operation="signal_dead_lettered"))
    assert proof["error_code"] == "not-permitted"


def test_no_main_process_of_a_worker_talks_to_google(stack: Stack, between: Relay) -> None:
    stack.subscribe("forked")
    assert _ended(stack, "forked", "s", "demo.succeed") == "complete"
    port = int(between.host.rpartition(":")[2])

    def talks(process: psutil.Process) -> bool:
        return any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp"))

    workers = {
        n: p
        for n, p in processes(stack.settings).items()
        if n in ("actions", "runbooks", "health", "beat")
    }
    assert not [name for name, main in workers.items() if talks(main)]
    children = [c for n in ("actions", "runbooks", "health") for c in workers[n].children()]
    assert any(talks(child) for child in children)


def test_a_child_killed_by_the_hard_limit_is_replaced_and_the_next_one_works(stack: Stack) -> None:
    stack.subscribe("stuck")
    worker = processes(stack.settings)["actions"]
    before = {child.pid for child in worker.children()}

    assert _ended(stack, "stuck", "spins", "demo.spin") == "rolled_back"

    until(lambda: len({c.pid for c in worker.children()} - before) >= 1)
    for n in range(2 * len(before)):
        assert _ended(stack, "stuck", f"after-{n}", "demo.succeed") == "complete"


def test_a_worker_that_is_killed_loses_nothing(stack: Stack) -> None:
    stack.subscribe("killed")
    answer = stack.signal(
        "killed", {"signal_id": "s", "type": "demo.sleep", "payload": {"seconds": 0.4}}
    )
    where = answer.headers["Location"]
    until(lambda: stack.read(where)["state"] == "running")
    worker = processes(stack.settings)["actions"]
    for process in (worker, *worker.children()):
        process.send_signal(signal.SIGKILL)

    until(lambda: stack.read(where)["state"] in ("rolled_back", "complete"))

    assert len(stack.receipts("killed", operation="action_rolled_back")) == 1


@pytest.mark.parametrize("fault", ["frozen", "stopped"])
def test_a_store_that_is_away_is_noticed_refused_and_heals_alone(
    stack: Stack, documents: Emulator, between: Relay, fault: str
) -> None:
    stack.subscribe(fault)
    before = _cleared(stack)
    under_way = stack.signal(
        fault, {"signal_id": "under-way", "type": "demo.sleep", "payload": {"seconds": 0.4}}
    )
    until(lambda: stack.read(under_way.headers["Location"])["state"] == "running")
    if fault == "frozen":
        documents.freeze()
    else:
        between.refuses = True
        between.cut()
    began = time.monotonic()
    try:
        until(lambda: _refused_as_degraded(stack, fault), 60)
        noticed_s = time.monotonic() - began
    finally:
        between.refuses = False
        if fault == "frozen":
            documents.thaw()
    thawed = time.monotonic()
    until(lambda: _mode(stack) == "normal", 60)
    recovered_s = time.monotonic() - thawed

    assert noticed_s <= 3 * 2 + 2 + 2
    assert recovered_s <= 3
    cleared = until(lambda: _cleared(stack) - before)
    assert "firestore_recovered" in {reason for _, reason in cleared}
    degraded, *_ = stack.receipts("_system", operation="degraded_mode")
    # Of a frozen server gRPC may know no more than that it does not answer to a new connection.
    known = {"frozen": ("DEADLINE_EXCEEDED", "UNAVAILABLE"), "stopped": ("UNAVAILABLE",)}
    assert degraded["error_code"] in known[fault]
    assert _ended(stack, fault, "refused", "demo.succeed") == "complete"  # asked for again
    until(lambda: stack.read(under_way.headers["Location"])["ended_at"])
    ends = ("action_complete", "action_timeout", "action_failed")
    told = [r["action_id"] for r in stack.receipts(fault, limit=1000) if r["operation"] in ends]
    assert len(told) == len(set(told))
    until(lambda: stack.ggen("verify-ledger", "--account-id", fault).returncode == 0)
    _assert_one_end(stack, before)


def _assert_one_end(stack: Stack, before: set[tuple[str, str]]) -> None:
    """Exactly one outage has ended since; else all that is known of them is shown."""
    ended = _cleared(stack) - before
    if [reason for _, reason in ended] != ["firestore_recovered"]:
        told = [
            r
            for operation in ("degraded_mode", "degraded_mode_cleared", "receipt_conflict")
            for r in stack.receipts("_system", operation=operation)
        ]
        log = stack.log().splitlines()
        seen = [line for line in log if "ggen.health" in line or "spool" in line]
        pytest.fail("\n".join([f"{ended} have ended", *map(str, told), *seen[-60:]]))


def _mode(stack: Stack) -> str:
    with stack.http() as http:
        return str(http.get("/readyz").json().get("mode"))


def _refused_as_degraded(stack: Stack, account_id: str) -> bool:
    asked = {"signal_id": "refused", "type": "demo.succeed", "payload": {}}
    answer = stack.signal(account_id, asked)
    assert answer.status_code == 503, answer.text
    assert "Retry-After" in answer.headers
    return bool(answer.json()["type"].endswith(":degraded"))


def _cleared(stack: Stack) -> set[tuple[str, str]]:
    """The receipts of outages that are over: id, and reason."""
    found = stack.receipts("_system", operation="degraded_mode_cleared")
    return {(r["receipt_id"], r["reason"]) for r in found}
