"""A receipt says only what happened, and who hears of a mistake is who made it (D28-D30)."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from pydantic import BaseModel

from adapters.local.system import free_ports
from ggen_governor import handlers
from ggen_governor.handlers import ActionContext, action, registered
from governor.errors import ActionError, InputError
from governor.fsm import ActionState
from governor.paths import action_path
from governor.records import ProcessClaim
from ledger import contracts
from ledger.receipt import receipt_id
from ports import Ports
from ports.documents import Create, Query, Update
from ports.slots import Slot
from tasks.actions import operators
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tasks.actions.recover import roll_back
from tasks.governors import policies
from tasks.health import troubles
from tests.conftest import Valkey
from tests.engine.conftest import event
from tests.support.actions import (
    action_of,
    given_to_undo,
    in_flight,
    later,
    offer,
    operations,
    receipts,
    signal_of,
)
from tests.support.runs import receipts as all_receipts
from tests.support.runs import subscribe, text_of
from tests.support.waiting import until

WORDS = "42 Main Street"


class Nothing(BaseModel):
    """No payload."""


@pytest.fixture(autouse=True)
def _governor(ports: Ports) -> None:
    subscribe(ports, event(plan_type="professional"))


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(handlers, "_REGISTERED", dict(handlers._REGISTERED))
    registered.cache_clear()


def act(ports: Ports, kind: str, **payload: Any) -> str:
    offer(ports, kind)
    action_id = submit(ports, signal_of("s", kind, **payload))
    execute(ports, "acme", action_id)
    return action_id


async def _coroutine(_context: ActionContext, _payload: Nothing) -> None: ...


def _generator(_context: ActionContext, _payload: Nothing) -> Any:
    yield


async def _async_generator(_context: ActionContext, _payload: Nothing) -> Any:
    yield


class _Callable:
    async def __call__(self, _context: ActionContext, _payload: Nothing) -> None: ...


def _plain(_context: ActionContext, _payload: Nothing) -> None: ...


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (_coroutine, "coroutine function"),
        (_generator, "generator"),
        (_Callable, "a class"),
        (_async_generator, "coroutine function"),
        (_Callable(), "a _Callable"),
    ],
)
def test_what_would_never_run_is_refused_when_it_is_registered(
    call: Any, kind: str, forget: None
) -> None:
    with pytest.raises(InputError, match=kind) as refused:
        action("test.odd", payload=Nothing)(call)
    assert "test.odd" in refused.value.detail
    assert "plain function" in refused.value.detail

    with pytest.raises(InputError, match=kind):
        action("test.even", payload=Nothing)(_plain).rollback(call)


def test_a_handler_that_says_nothing_of_its_undo_is_refused_by_name_and_line(forget: None) -> None:
    action("test.silent", payload=Nothing)(_plain)

    with pytest.raises(InputError, match=r"test\.silent.*test_truth\.py:\d+.*undo=None"):
        registered()


def test_work_that_is_given_back_and_not_done_is_a_failure(ports: Ports) -> None:
    action_id = act(ports, "test.lazy")

    assert operations(ports, action_id) == ["action_failed"]
    assert receipts(ports, action_id)[0]["error_code"] == "DID_NOT_RUN"


def test_an_action_without_an_undo_that_times_out_is_not_called_rolled_back(ports: Ports) -> None:
    action_id = act(ports, "test.nothing_to_undo", sleep_s=3)

    (proof,) = receipts(ports, action_id)
    assert (proof["operation"], proof["rollback"]) == ("action_timeout", "none")
    assert action_of(ports, action_id).state is ActionState.FAILED
    assert in_flight(ports) == 0
    assert "alert_raised" not in [r["operation"] for r in all_receipts(ports)]


def test_a_rollback_is_given_what_the_handler_learned_before_it_failed(ports: Ports) -> None:
    action_id = act(ports, "test.fate", learns={"order": "o-1"}, raises="recoverable")

    assert operations(ports, action_id) == ["action_failed", "action_rolled_back"]
    assert given_to_undo(action_id) == {"result": None, "learned": {"order": "o-1"}}


def test_what_a_handler_returns_is_kept_on_its_action(ports: Ports) -> None:
    action_id = act(ports, "test.fate", returns={"order": "o-2"})

    assert operations(ports, action_id) == ["action_complete"]
    assert json.loads(action_of(ports, action_id).result or "") == {"order": "o-2"}


def test_a_result_that_cannot_be_kept_is_undone(ports: Ports) -> None:
    action_id = act(ports, "test.fate", returns="x" * 5000)

    assert operations(ports, action_id) == ["action_failed", "action_rolled_back"]
    assert receipts(ports, action_id)[0]["error_code"] == "RESULT_INVALID"


def test_too_much_to_learn_is_refused_and_what_was_learned_stays() -> None:
    context = ActionContext("acme", "crm", "a", "s", 0.0)
    context.learn(order="o-1")

    with pytest.raises(ActionError):
        context.learn(more="x" * 5000)
    with pytest.raises(ActionError):
        context.learn(more=object())  # type: ignore[arg-type]

    assert context.learned == {"order": "o-1"}


@pytest.mark.parametrize("raises", ["bug", "recoverable"])
def test_no_words_of_a_handler_enter_the_ledger_and_a_bug_is_in_the_log(
    ports: Ports, caplog: pytest.LogCaptureFixture, raises: str
) -> None:
    with caplog.at_level(logging.ERROR):
        action_id = act(ports, "test.fate", raises=raises)

    failed = receipts(ports, action_id)[0]
    assert WORDS in text_of(ports, failed)
    for document in ports.documents.scan(Query("tenants/acme/receipts", limit=1000)):
        assert WORDS not in document.data["payload"]
    (line,) = [r for r in caplog.records if "test.fate failed" in r.getMessage()]
    assert action_id in line.getMessage()
    assert "acme" in line.getMessage()
    assert bool(line.exc_info) == (raises == "bug")


def test_every_receipt_of_today_is_of_the_newest_version_and_the_first_stays_valid(
    ports: Ports,
) -> None:
    action_id = act(ports, "test.fate", raises="recoverable")

    assert receipts(ports, action_id)[0]["contract_version"] == 2
    fields = {**receipts(ports, action_id)[0]}
    for name in (
        "contract_version",
        "error_sha256",
        "rollback",
        "entitlement_id",
        "policy_digest",
    ):
        del fields[name]
    contracts.validate({**fields, "error_detail": "words"})
    with pytest.raises(InputError, match="contract_version"):
        contracts.validate({**fields, "contract_version": 3})
    with pytest.raises(InputError, match="contract_version"):
        contracts.validate({**fields, "contract_version": True})


# -- whose mistake it is


def test_a_payload_the_model_refuses_is_refused_at_the_door_and_costs_nothing(
    ports: Ports,
) -> None:
    month = ports.clock.now().strftime("%Y-%m")
    for payload in ({}, {"recoverable": "perhaps"}):
        with pytest.raises(InputError) as refused:
            submit(ports, signal_of("s", "demo.fail", **payload))
        assert refused.value.code == "payload-invalid"
        assert "recoverable" in refused.value.detail

    assert ports.documents.scan(Query("tenants/acme/actions")) == []
    assert in_flight(ports) == 0
    assert ports.memory.used("acme", "demo-sku", month) == 0
    assert [r["operation"] for r in all_receipts(ports)] == ["entitlement_active"]
    assert submit(ports, signal_of("s", "demo.fail", recoverable=True))  # its id is free


def test_a_payload_model_that_fails_in_its_own_way_is_its_authors_mistake(ports: Ports) -> None:
    action_id = act(ports, "test.odd_payload")

    assert operations(ports, action_id) == ["action_failed"]
    assert "alert_raised" in [r["operation"] for r in all_receipts(ports)]


def test_a_rollback_that_keeps_failing_alerts_once_and_is_given_more_time(ports: Ports) -> None:
    action_id = act(ports, "test.fate", raises="recoverable", undo_s=0.3)
    for ahead_s in (3, 8):
        roll_back(later(ports, ahead_s), "acme", action_id)

    told = [r["operation"] for r in all_receipts(ports)]
    assert told.count("rollback_failed") == 2
    assert told.count("alert_raised") == 1
    assert action_of(ports, action_id).state is ActionState.ROLLED_BACK  # in 400 ms it holds


def test_an_operator_resolves_a_rollback_that_never_holds(ports: Ports) -> None:
    action_id = act(ports, "test.fate", raises="recoverable", undo_s=9)

    ended = operators.resolve(ports, "acme", action_id, "alice", "seats put back by hand")

    assert (ended.state, ended.retry_at) == (ActionState.FAILED, None)
    proof = receipts(ports, action_id)[-1]
    assert (proof["operation"], proof["operator"]) == ("action_resolved", "alice")
    roll_back(later(ports, 60), "acme", action_id)
    assert operations(ports, action_id)[-1] == "action_resolved"
    assert in_flight(ports) == 0


def test_a_policy_in_force_that_cannot_be_used_is_told_once_and_shown_until_it_is_gone(
    ports: Ports, caplog: pytest.LogCaptureFixture
) -> None:
    ports.objects.create("policies/crm/starter/1.0.0.json", _policy("crm.missing"))
    ports.documents.commit([Create("policies/crm~starter", {"policy_version": "1.0.0"})])

    for n in range(3):
        run = subscribe(ports, event(event_id=f"e-crm-{n}", account_id="beta", sku_id="crm"))
        assert run.error_code == "policy-unusable"
        troubles.look_for_all(ports)

    found = {t.name: t for t in ports.memory.troubles()}["policy-unusable/crm/starter"]
    assert found.blocks
    assert "crm.missing" in found.detail
    assert found.count >= 3
    alerts = [r for r in all_receipts(ports, "_system") if r["operation"] == "alert_raised"]
    assert [a["cause"] for a in alerts] == ["policy-unusable"]
    assert "crm.missing" in caplog.text
    (pointer,) = [
        d for d in ports.documents.scan(Query("policies")) if d.path.endswith("crm~starter")
    ]
    policies.forget_loaded()
    ports.objects.create("policies/crm/starter/1.0.1.json", _policy("demo.succeed", "1.0.1"))
    ports.documents.commit([Update(pointer.path, {"policy_version": "1.0.1"}, pointer.revision)])
    troubles.look_for_all(ports)
    assert "policy-unusable/crm/starter" not in {t.name for t in ports.memory.troubles()}


def _policy(handler: str, version: str = "1.0.0") -> bytes:
    return json.dumps(
        {
            "sku_id": "crm",
            "plan_type": "starter",
            "policy_version": version,
            "quota": {"monthly_actions": 1},
            "actions": {"x": {"handler": handler}},
            "signals": {"x": "x"},
            "permissions": ["x"],
        }
    ).encode()


def test_failing_rollbacks_and_a_missing_address_wait_for_the_operator(
    ports: Ports, tmp_path: Path
) -> None:
    act(ports, "test.fate", raises="recoverable", undo_s=9)

    troubles.look_for_all(ports)
    assert {t.name for t in ports.memory.troubles()} == {"rollbacks-failing", "no-alert-address"}
    assert not any(t.blocks for t in ports.memory.troubles())
    (tmp_path / "secrets" / "alert.urls").write_text("json://127.0.0.1:1/\n")
    troubles.look_for_all(ports)

    assert {t.name for t in ports.memory.troubles()} == {"rollbacks-failing"}


def test_actions_that_wait_for_a_worker_are_shown(ports: Ports) -> None:
    submit(ports, signal_of("waits"))
    troubles.look_for_all(ports)
    assert "actions-waiting" not in {t.name for t in ports.memory.troubles()}

    troubles.look_for_all(later(ports, 7))

    found = {t.name: t for t in ports.memory.troubles()}
    assert "1 accepted actions wait for a worker, up to 7 s" in found["actions-waiting"].detail


class _InactiveError(Exception):
    """As a gRPC stub names its own."""


@action("test.private_error", payload=Nothing)
def private_error(_context: ActionContext, _payload: Nothing) -> None:
    """Fails with an error whose name, and whose text, no contract takes as they are."""
    raise _InactiveError("\udcff")


@private_error.rollback
def _private_undo(_context: ActionContext, _payload: Nothing) -> None:
    raise _InactiveError("\udcff")


def test_what_a_handler_raises_can_be_receipted_whatever_it_is(ports: Ports) -> None:
    action_id = act(ports, "test.private_error")

    assert operations(ports, action_id) == ["action_failed", "rollback_failed"]
    assert [r["error_code"] for r in receipts(ports, action_id)] == ["InactiveError"] * 2
    assert text_of(ports, receipts(ports, action_id)[0]) == "\\udcff"


def test_an_action_of_release_0_1_0_without_an_undo_ends_failed(ports: Ports) -> None:
    offer(ports, "test.nothing_to_undo")
    action_id = submit(ports, signal_of("s", "test.nothing_to_undo", sleep_s=3))
    found = ports.documents.get(action_path("acme", action_id))
    assert found
    old = {k: v for k, v in found.data.items() if k not in ("has_rollback", "is_alerted")}
    ports.documents.commit([Update(found.path, old, found.revision)])

    execute(ports, "acme", action_id)

    assert action_of(ports, action_id).state is ActionState.FAILED
    assert receipts(ports, action_id)[0]["rollback"] == "none"


def test_what_was_learned_is_a_copy(ports: Ports) -> None:
    context = ActionContext("acme", "crm", "a", "s", 0.0)
    seats: list[Any] = [1]
    context.learn(seats=seats)
    seats.append(object())

    assert context.learned == {"seats": [1]}


def test_a_rollback_whose_first_attempt_was_lost_alerts_at_the_first_failure_seen(
    ports: Ports,
) -> None:
    offer(ports, "test.private_error")
    action_id = submit(ports, signal_of("s", "test.private_error"))
    found = ports.documents.get(action_path("acme", action_id))
    assert found
    ports.memory.begin(
        Slot("acme", "test-sku", action_id),
        claim := _dead(ports),
        60_000,
    )
    lost = action_of(ports, action_id).evolve(
        state=ActionState.ROLLING_BACK,
        claim=claim.model_dump(),
        rollback_attempts=1,
        has_rollback=True,
        failure_receipt_id=receipt_id("acme", "action_failed", action_id),
    )
    ports.documents.commit([Update(found.path, lost.document(), found.revision)])

    for attempt in (2, 3):
        roll_back(later(ports, 600 * attempt), "acme", action_id)
        assert action_of(ports, action_id).rollback_attempts == attempt + 1

    alerts = [r for r in all_receipts(ports) if r["operation"] == "alert_raised"]
    assert len(alerts) == 1


def _dead(ports: Ports) -> ProcessClaim:
    """The claim of a process that is no more."""
    own = ports.processes.claim(ports.clock.now())
    with subprocess.Popen(["true"]) as gone:
        pass
    return own.evolve(pid=gone.pid)


class Strict(BaseModel):
    """A later release of a handler's model asks for more."""

    seats: int


def test_a_signal_accepted_under_an_earlier_model_is_a_duplicate_for_ever(
    ports: Ports, valkey: Valkey
) -> None:
    offer(ports, "test.private_error")
    action_id = submit(ports, signal_of("s", "test.private_error"))
    with redis.Redis.from_url(valkey.url) as client:
        client.delete(f"ggen:seen:{action_id}", "ggen:inflight:acme/test-sku")
    kept = registered()["test.private_error"]
    object.__setattr__(kept, "payload", Strict)
    try:
        assert submit(ports, signal_of("s", "test.private_error")) == action_id
        with pytest.raises(InputError, match="seats"):
            submit(ports, signal_of("t", "test.private_error"))
    finally:
        object.__setattr__(kept, "payload", Nothing)
    assert in_flight(ports) == 0


def test_a_name_stays_with_its_first_handler_and_a_module_may_be_imported_again(
    forget: None,
) -> None:
    action("test.twice", payload=Nothing, undo=None)(_plain)
    action("test.twice", payload=Nothing, undo=None)(_plain)

    with pytest.raises(InputError, match="two handlers"):
        action("test.twice", payload=Nothing, undo=None)(_coroutine)


class Seats(BaseModel):
    """Seats at a receiver that is slower than the deadline."""

    url: str
    number: int
    slow_s: float


@pytest.mark.alone  # its undo, over HTTP, has 100 ms
def test_what_a_slow_receiver_is_told_too_late_stays_undone(
    ports: Ports, tmp_path: Path, forget: None
) -> None:
    (port,) = free_ports(1)
    receiver = Path(__file__).parents[3] / "examples" / "seats_receiver.py"
    command = [sys.executable, "-I", str(receiver), str(tmp_path / "seats.db"), str(port)]
    url = f"http://127.0.0.1:{port}/seats"

    @action("test.seats", payload=Seats)
    def add(context: ActionContext, asked: Seats) -> None:
        told = {"number": asked.number, "slow_s": asked.slow_s}
        httpx.put(f"{asked.url}/{context.action_id}", json=told, timeout=30)

    @add.rollback
    def remove(context: ActionContext, asked: Seats) -> None:
        httpx.delete(f"{asked.url}/{context.action_id}").raise_for_status()

    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as running:
        try:
            until(lambda: _seats(url) == 0)
            action_id = act(ports, "test.seats", url=url, number=3, slow_s=1.0)
            assert operations(ports, action_id) == ["action_timeout", "action_rolled_back"]
            log = iter(running.stderr or ())
            assert next(line for line in log if "PUT" in line).split('"')[2].strip() == "410 -"
            assert _seats(url) == 0
        finally:
            running.terminate()


def _seats(url: str) -> int:
    try:
        return int(httpx.get(url, timeout=2).json()["seats"])
    except httpx.TransportError:
        return -1
