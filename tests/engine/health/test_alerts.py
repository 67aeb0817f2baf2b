"""Alerts: logged at once, brought to every address once, tried until they are taken."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis

from adapters.alerts import digest_of, unknown_addresses
from ports import Ports
from ports.alerts import Alert, Letter
from tasks.health.alerts import deliver_due
from tests.conftest import Valkey
from tests.support.stores import Stores


class Hook(ThreadingHTTPServer):
    """Somebody's webhook: takes what it is sent, or refuses it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.refuses = False
        self.taken: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"json://secret-name:secret-word@127.0.0.1:{self.server_address[1]}/hook"  # pragma: allowlist secret


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.refuses:
            self.server.taken.append(json.loads(body))
        self.send_response(503 if self.server.refuses else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture
def addresses(stores: Stores, ports: Ports) -> Path:
    return stores.folder / "secrets" / "alert.urls"


def alert(number: int = 1, **changes: Any) -> Alert:
    fields = {
        "alert_id": f"r-{number}",
        "severity": "critical",
        "cause": "degraded_mode",
        "account_id": "_system",
        "subject": "outage-1",
        "detail": "the store is away",
    }
    return Alert(**{**fields, **changes})


def at_once(valkey: Valkey) -> None:
    """What rests is due now."""
    memory = redis.Redis.from_url(valkey.url)
    for letter in memory.zrange("ggen:letters:due", 0, -1):
        memory.zadd("ggen:letters:due", {letter: 0})


def test_an_alert_reaches_its_address_once_however_often_it_is_sent(
    ports: Ports, hook: Hook, addresses: Path
) -> None:
    addresses.write_text(f"# operations\n\n{hook.url}\n{hook.url}\n")

    for _ in range(3):
        ports.alerts.send(alert())
        deliver_due(ports)

    (told,) = hook.taken
    assert told["title"] == "ggen critical: degraded_mode"
    assert "the store is away" in told["message"]
    assert not ports.memory.undelivered(10)


def test_what_is_not_taken_can_be_seen_and_is_tried_until_it_is(
    ports: Ports, hook: Hook, addresses: Path, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    addresses.write_text(hook.url)
    hook.refuses = True
    ports.alerts.send(alert())

    for attempts in (1, 2, 3):
        deliver_due(ports)
        (letter,) = ports.memory.undelivered(10)
        assert (letter.attempts, letter.fault) == (attempts, "json: not taken")
        deliver_due(ports)  # it rests first
        assert ports.memory.undelivered(10)[0].attempts == attempts
        at_once(valkey)

    hook.refuses = False
    deliver_due(ports)
    assert len(hook.taken) == 1
    assert not ports.memory.undelivered(10)
    assert "not delivered" in caplog.text


def test_no_secret_of_an_address_is_told_anywhere(
    ports: Ports, hook: Hook, addresses: Path, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    addresses.write_text(hook.url)
    hook.refuses = True
    with caplog.at_level(0):
        ports.alerts.send(alert())
        deliver_due(ports)

    memory = redis.Redis.from_url(valkey.url)
    kept = b" ".join(memory.hvals("ggen:letters")) + b" ".join(memory.keys("*"))
    assert b"secret-" not in kept
    assert "secret-" not in caplog.text
    assert "secret-" not in repr(ports.memory.undelivered(10))


def test_a_storm_of_one_cause_is_one_message(ports: Ports, hook: Hook, addresses: Path) -> None:
    addresses.write_text(hook.url)
    for number in range(30):
        ports.alerts.send(alert(number, cause="action_failed", subject=f"action-{number}"))
    ports.alerts.send(alert(99, severity="info"))

    deliver_due(ports)

    assert sorted(told["title"] for told in hook.taken) == [
        "ggen critical: action_failed (30 times)",
        "ggen info: degraded_mode",
    ]
    storm = next(t for t in hook.taken if "30 times" in t["title"])
    assert storm["message"].count("action-") == 10
    assert "and 20 more" in storm["message"]


def test_one_address_that_takes_nothing_keeps_no_other_from_being_told(
    ports: Ports, hook: Hook, addresses: Path
) -> None:
    addresses.write_text(f"json://127.0.0.1:1/nobody\n{hook.url}\n")
    ports.alerts.send(alert())

    deliver_due(ports)

    assert len(hook.taken) == 1
    assert len(ports.memory.undelivered(10)) == 1


def test_an_address_that_was_removed_is_waited_for_no_longer(
    ports: Ports, addresses: Path, valkey: Valkey
) -> None:
    addresses.write_text("json://127.0.0.1:1/nobody")
    ports.alerts.send(alert())
    deliver_due(ports)
    addresses.unlink()
    at_once(valkey)

    deliver_due(ports)

    assert not ports.memory.undelivered(10)


def test_a_plugin_that_breaks_is_an_alert_not_taken(
    ports: Ports, addresses: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import apprise

    def broken(*_: object, **__: object) -> bool:
        raise TypeError("a plugin's own fault")

    addresses.write_text("json://127.0.0.1:1/x")
    monkeypatch.setattr(apprise.Apprise, "notify", broken)

    assert ports.alerts.deliver([Letter(alert(), digest_of("json://127.0.0.1:1/x"))]) == (
        "json: TypeError"
    )


def test_sending_holds_nobody_up_where_nobody_can_be_told(
    ports: Ports, addresses: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from adapters.alerts import PostedAlerts
    from adapters.local.secret_files import SecretFiles
    from adapters.valkey.memory import ValkeyMemory

    addresses.write_text("json://127.0.0.1:1/x")
    away = ValkeyMemory("redis://127.0.0.1:1/0")
    PostedAlerts(SecretFiles(addresses.parent), away).send(alert())

    assert "ALERT degraded_mode" in caplog.text
    assert "in the log alone" in caplog.text


def test_addresses_nobody_knows_are_named_by_their_number() -> None:
    assert unknown_addresses(["json://127.0.0.1/x", "nonsense", "carrier-pigeon://x"]) == [2, 3]
    assert unknown_addresses([]) == []
