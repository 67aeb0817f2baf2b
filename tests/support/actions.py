"""What tests of actions share: signals, workers that die, a clock ahead of the real one."""

import dataclasses
import hashlib
import json
import os
import signal
import time
from datetime import datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, model_validator

from ggen_governor.handlers import ActionContext, action
from governor import paths
from governor.actions import Action
from governor.errors import RecoverableError
from governor.fsm import ActionState
from governor.quota import month_of
from ledger.receipt import SignedReceipt
from ledger.verify import Recorded, verify
from ports import Ports
from ports.documents import Query
from ports.slots import Slot
from tasks import ticks
from tasks.actions.admit import Signal
from tasks.actions.execute import execute
from tasks.governors import policies
from tests.engine.conftest import event
from tests.support.faults import FaultyDocuments
from tests.support.runs import subscribe
from tests.support.stores import Stores
from tests.support.waiting import until


class LaterClock:
    """The real clock, some seconds ahead."""

    def __init__(self, ports: Ports, ahead_s: float) -> None:
        self._inner, self._ahead = ports.clock, timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return self._inner.now() + self._ahead

    def machine(self) -> datetime:
        return self._inner.machine()

    def monotonic_s(self) -> float:
        return self._inner.monotonic_s()

    def sleep(self, seconds: float) -> None:
        self._ahead += timedelta(seconds=seconds)


def later(ports: Ports, seconds: float) -> Ports:
    return dataclasses.replace(ports, clock=LaterClock(ports, seconds))


def signal_of(signal_id: str, kind: str = "demo.succeed", **payload: Any) -> Signal:
    return Signal("acme", signal_id, kind, None, payload)


def action_of(ports: Ports, action_id: str) -> Action:
    found = ports.documents.get(paths.action_path("acme", action_id))
    assert found
    return Action.model_validate(found.data)


def receipts(ports: Ports, action_id: str) -> list[dict[str, Any]]:
    found = ports.documents.scan(Query("tenants/acme/receipts", order_by="timestamp", limit=1000))
    fields = [SignedReceipt.model_validate(d.data).fields() for d in found]
    return [f for f in fields if f.get("action_id") == action_id]


def operations(ports: Ports, action_id: str) -> list[str]:
    return [f["operation"] for f in receipts(ports, action_id)]


def in_flight(ports: Ports) -> int:
    return ports.memory.in_flight("acme", ["demo-sku"])


def counted(ports: Ports) -> tuple[int, int]:
    """How many actions hold a place, and how many count for this month."""
    return in_flight(ports), ports.memory.used("acme", "demo-sku", month_of(ports.clock.now()))


def worker(stores: Stores, action_id: str, lost: range = range(0)) -> BaseProcess:
    """A process of its own that carries an action out; some of its commits are lost."""
    return stores.process(_carry_out, action_id, lost)


def _carry_out(ports: Ports, action_id: str, lost: range) -> None:
    documents = FaultyDocuments(ports.documents, "lost", set(lost))
    execute(dataclasses.replace(ports, documents=documents), "acme", action_id)  # type: ignore[arg-type]


def every_receipt_is_valid(ports: Ports) -> bool:
    for document in ports.documents.scan(Query("tenants/acme/receipts", limit=1000)):
        stored = SignedReceipt.model_validate(document.data)
        entry = Recorded(stored, document.path.rsplit("/", 1)[1], document.created_at)
        assert all(f.holds for f in verify(entry, account_id="acme", ring=ports.keys.ring()))
    return True


def killed_while_running(ports: Ports, stores: Stores, action_id: str) -> None:
    child = worker(stores, action_id)
    until(lambda: action_of(ports, action_id).state is ActionState.RUNNING, every_s=0.005)
    assert child.pid
    os.kill(child.pid, signal.SIGKILL)
    child.join()


def look(ports: Ports, *action_ids: str, sku_id: str = "demo-sku") -> None:
    """What the reaper does once the looks at these actions are due, by Memory's own clock."""
    for action_id in action_ids:
        ports.memory.look_again(Slot("acme", sku_id, action_id), -1)
    ticks.look(ports)


class Nothing(BaseModel):
    """No payload."""


@action("test.stuck_undo", payload=Nothing)
def stuck_undo(_context: ActionContext, _payload: Nothing) -> None:
    """Fails recoverably; its rollback does not come back the first time, and no signal ends it."""
    raise RecoverableError("TEST", "fails on purpose")


@stuck_undo.rollback
def _stays(context: ActionContext, _payload: Nothing) -> None:
    tried = Path(os.environ["GGEN_STATE_DIR"], context.action_id)
    if not tried.exists():
        tried.touch()
        hashlib.pbkdf2_hmac("sha256", b"test", b"spin", 2**31 - 1)


class Odd(BaseModel):
    """A payload that is refused by an error of its model's own."""

    @model_validator(mode="before")
    @classmethod
    def _odd(cls, _value: object) -> object:
        raise KeyError("seats")


@action("test.odd_payload", payload=Odd, undo=None)
def odd_payload(_context: ActionContext, _payload: Odd) -> None:
    """Is never reached."""


class Fate(BaseModel):
    """How a test's action ends, and what it says on the way."""

    sleep_s: float = 0
    raises: str = ""
    returns: Any = None
    learns: dict[str, Any] = {}
    undo_s: float = 0


def _meet(context: ActionContext, fate: Fate) -> Any:
    context.learn(**fate.learns)
    time.sleep(fate.sleep_s)
    match fate.raises:
        case "recoverable":
            raise RecoverableError("TEST", "Jane Doe, 42 Main Street")
        case "bug":
            raise ZeroDivisionError("Jane Doe, 42 Main Street")
    return fate.returns


@action("test.nothing_to_undo", payload=Fate, undo=None)
def nothing_to_undo(context: ActionContext, fate: Fate) -> Any:
    """Ends as it is told, and leaves nothing to undo."""
    return _meet(context, fate)


@action("test.fate", payload=Fate)
def fated(context: ActionContext, fate: Fate) -> Any:
    """Ends as it is told; its rollback notes what it was given."""
    return _meet(context, fate)


@fated.rollback
def _fated_undo(context: ActionContext, fate: Fate) -> None:
    time.sleep(fate.undo_s)
    given = {"result": context.result, "learned": context.learned}
    Path(os.environ["GGEN_STATE_DIR"], f"given-{context.action_id}").write_text(json.dumps(given))


async def _later() -> None:
    """Work that nothing would carry out."""


@action("test.lazy", payload=Nothing, undo=None)
def lazy(_context: ActionContext, _payload: Nothing) -> Any:
    """Gives back work instead of doing it."""
    return _later()


def given_to_undo(action_id: str) -> Any:
    """What a rollback of ``test.fate`` was given."""
    path = Path(os.environ["GGEN_STATE_DIR"], f"given-{action_id}")
    return json.loads(path.read_text())


def offer(ports: Ports, name: str) -> None:
    """Have acme subscribe to a product that has this action."""
    policy = {
        "sku_id": "test-sku",
        "plan_type": "starter",
        "policy_version": "1.0.0",
        "quota": {"monthly_actions": 10},
        "actions": {name: {"handler": name}},
        "signals": {name: name},
        "permissions": [name],
    }
    policies.register(ports, json.dumps(policy).encode())
    subscribe(ports, event(event_id="e-test", sku_id="test-sku"))
