"""Actions by HTTP: signed, once, inside the deadline, undone even where the receiver is slower."""

import dataclasses
import importlib.util
import json
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from adapters.calls import GuardedCalls
from governor.fsm import ActionState
from governor.tenancy import MarketplaceEvent
from ports import Ports
from tasks.actions.admit import submit
from tasks.actions.execute import execute
from tasks.actions.recover import roll_back
from tasks.governors import policies
from tests.engine.conftest import event
from tests.support.actions import action_of, later, operations, receipts, signal_of
from tests.support.runs import subscribe
from tests.support.waiting import until

EXAMPLE = Path(__file__).parents[3] / "examples" / "http_actions"
PLAN = "seats", "starter"


class Receiver(ThreadingHTTPServer):
    """A receiver that answers as a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.answers: list[tuple[int, bytes]] = []
        self.connections = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    def get_request(self) -> Any:
        self.connections += 1
        return super().get_request()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((headers, {**json.loads(body), "raw": body}))
        status, answer = self.server.answers.pop(0) if self.server.answers else (200, b"{}")
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_words: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def offered(ports: Ports, port: int, **spec: Any) -> Ports:
    """Ports under which acme may have seats added by a receiver."""
    document = json.loads((EXAMPLE / "seats.starter.json").read_text())
    url = f"http://127.0.0.1:{port}/seats"
    document["actions"] = {"add-seats": {"execute_url": url, "rollback_url": url, **spec}}
    policies.register(ports, json.dumps(document).encode())
    subscribe(ports, _subscription())
    return ports


def _subscription() -> MarketplaceEvent:
    return event(sku_id="seats")


def act(ports: Ports, signal_id: str = "s", **payload: Any) -> str:
    action_id = submit(ports, signal_of(signal_id, "seats.added", **payload))
    execute(ports, "acme", action_id)
    return action_id


def test_a_request_is_signed_and_says_what_is_to_be_done(ports: Ports, receiver: Receiver) -> None:
    offered(ports, receiver.server_port)
    receiver.answers = [(200, b'{"result": {"order": "o-1"}}')]

    action_id = act(ports, number=3)

    action = action_of(ports, action_id)
    assert (action.state, action.result) == (ActionState.COMPLETE, '{"order":"o-1"}')
    assert operations(ports, action_id) == ["action_complete"]
    assert receipts(ports, action_id)[0]["handler"] == "add-seats"
    ((headers, told),) = receiver.asked
    for secret in ports.secrets.action_secrets(*PLAN):
        Webhook(secret).verify(told["raw"], headers)
    assert (headers["idempotency-key"], headers["webhook-id"]) == (action_id, action_id)
    assert 0 < int(headers["x-deadline-ms"]) <= 500
    assert (told["kind"], told["payload"], told["account_id"]) == (
        "execute",
        {"number": 3},
        "acme",
    )


@pytest.mark.parametrize(
    ("status", "answer", "state", "code"),
    [
        (204, b"", "complete", None),
        (200, b"words", "complete", None),
        (200, b'{"result": "' + b"x" * 4096 + b'"}', "rolled_back", "RESULT_INVALID"),
        (200, b"x" * 9000, "rolled_back", "ANSWER_TOO_LARGE"),
        (500, b"", "rolled_back", "HTTP_500"),
        (409, b'{"code": "FULL", "recoverable": true}', "rolled_back", "FULL"),
        (409, b'{"code": "FULL", "recoverable": false}', "failed", "FULL"),
        (503, b'{"code": "no code at all", "detail": 7}', "rolled_back", "HTTP_503"),
        (422, b'{"code": "NO_NUMBER", "recoverable": false}', "failed", "NO_NUMBER"),
        (422, b'{"recoverable": true}', "rolled_back", "HTTP_422"),
        (302, b"", "rolled_back", "REDIRECT_REFUSED"),
    ],
)
def test_an_answer_says_how_the_action_ended(
    ports: Ports, receiver: Receiver, status: int, answer: bytes, state: str, code: str | None
) -> None:
    offered(ports, receiver.server_port)
    receiver.answers = [(status, answer)]

    action = action_of(ports, act(ports))

    assert (action.state, action.error_code) == (state, code)
    kinds = [told["kind"] for _, told in receiver.asked]
    assert kinds == ["execute", "rollback"] if state == "rolled_back" else ["execute"]


def test_a_tenant_s_mistake_alerts_nobody_and_counts_for_no_version(
    ports: Ports, receiver: Receiver
) -> None:
    offered(ports, receiver.server_port)
    receiver.answers = [(422, b"")]

    action_id = act(ports)

    action = action_of(ports, action_id)
    assert (action.state, action.is_counted) == ("failed", False)
    (failed,) = receipts(ports, action_id)
    assert (failed["operation"], failed["rollback"]) == ("action_failed", "none")
    assert ports.slots.outcomes(str(action.policy_digest)).ended == 0


def test_a_rollback_has_the_key_and_says_that_the_first_must_have_no_effect(
    ports: Ports, receiver: Receiver
) -> None:
    offered(ports, receiver.server_port)
    receiver.answers = [(500, b""), (503, b""), (200, b"")]

    action_id = act(ports)

    assert action_of(ports, action_id).state is ActionState.ROLLBACK_FAILED
    assert roll_back(later(ports, 2), "acme", action_id).is_done
    assert operations(ports, action_id) == [
        "action_failed",
        "rollback_failed",
        "action_rolled_back",
    ]
    for headers, told in receiver.asked[1:]:
        assert headers["idempotency-key"] == action_id
        assert headers["webhook-id"] == f"{action_id}.rollback"
        assert (told["kind"], told["execute_must_have_no_effect"]) == ("rollback", True)
        Webhook(ports.secrets.action_secrets(*PLAN)[0]).verify(told["raw"], headers)


def test_where_nothing_is_to_be_undone_no_request_asks_for_it(
    ports: Ports, receiver: Receiver
) -> None:
    offered(ports, receiver.server_port, rollback_url=None)
    receiver.answers = [(500, b"")]

    action_id = act(ports)

    assert action_of(ports, action_id).state is ActionState.FAILED
    assert receipts(ports, action_id)[0]["rollback"] == "none"
    assert len(receiver.asked) == 1


def test_connections_are_kept_for_the_next_action(ports: Ports, receiver: Receiver) -> None:
    offered(ports, receiver.server_port)

    for number in range(5):
        act(ports, f"s-{number}")

    assert len(receiver.asked) == 5
    assert receiver.connections == 1


def test_no_one_listens(ports: Ports) -> None:
    offered(ports, 1)

    action = action_of(ports, act(ports))

    assert (action.state, action.error_code) == ("rollback_failed", "CALL_FAILED")


def test_an_address_that_is_not_allowed_is_sent_nothing(ports: Ports, receiver: Receiver) -> None:
    offered(ports, receiver.server_port)
    strict = dataclasses.replace(ports, calls=GuardedCalls())

    action_id = act(strict)

    action = action_of(ports, action_id)
    assert (action.state, action.error_code) == ("failed", "ADDRESS_REFUSED")
    assert receipts(ports, action_id)[0]["rollback"] == "impossible"  # which alerts
    assert receiver.connections == 0


def test_a_secret_is_changed_without_a_gap(ports: Ports, receiver: Receiver) -> None:
    offered(ports, receiver.server_port)
    (former,) = ports.secrets.action_secrets(*PLAN)

    ports.secrets.rotate_action_secret(*PLAN)  # type: ignore[attr-defined]

    newest, kept = ports.secrets.action_secrets(*PLAN)
    assert kept == former
    act(ports)
    ((headers, told),) = receiver.asked
    for secret in (newest, former):
        Webhook(secret).verify(told["raw"], headers)


# -- The example's receiver, which does it right


def _example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("receiver", EXAMPLE / "receiver.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def seats(ports: Ports, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    server = _example().serve(str(tmp_path / "seats.db"), 0, [*ports.secrets.action_secrets(*PLAN)])
    threading.Thread(target=server.serve_forever, daemon=True).start()
    offered(ports, server.server_port)
    yield sqlite3.connect(tmp_path / "seats.db")
    server.shutdown()
    server.server_close()


def _state(seats: sqlite3.Connection, action_id: str) -> tuple[str | None, int]:
    row = seats.execute("SELECT state FROM actions WHERE key = ?", [action_id]).fetchone()
    (total,) = seats.execute("SELECT count(*) FROM seats").fetchone()
    return (row[0] if row else None), int(total)


def test_a_receiver_that_ends_after_its_rollback_has_no_effect(
    ports: Ports, seats: sqlite3.Connection
) -> None:
    well = act(ports, "well", number=3)
    assert (action_of(ports, well).state, _state(seats, well)) == ("complete", ("done", 1))

    late = act(ports, "late", number=3, work_s=0.8)

    action = action_of(ports, late)
    assert (action.state, action.error_code) == ("rolled_back", "DEADLINE_EXCEEDED")
    assert action.run_ms is not None
    assert 500 <= action.run_ms < 600
    ports.calls.close()
    until(lambda: not any("process_request" in each.name for each in threading.enumerate()), 5)
    assert _state(seats, late) == ("undone", 1)


def test_a_receiver_knows_a_repetition_and_a_stranger(
    ports: Ports, seats: sqlite3.Connection
) -> None:
    action_id = act(ports, "once", number=3)
    action = action_of(ports, action_id)
    assert action.execute_url
    headers = {"content-type": "application/json", "idempotency-key": action_id}
    stranger = ports.calls.post(action.execute_url, headers, b"{}", within_s=2, most_bytes=1000)
    assert stranger.status == 401

    refused = action_of(ports, act(ports, "no number"))
    assert (refused.state, refused.error_code) == ("failed", "NO_NUMBER")
    assert _state(seats, action_id) == ("done", 1)
