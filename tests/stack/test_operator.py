"""The ten questions of an operator who has never seen the project: each answer is on one screen.

Each test brings the stack into a state, and reads the answer off ``ggen status``.
"""

import json
import shlex
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from adapters.wiring import memory_url, open_ports
from governor.health import Drill, Fault, Scope
from ports import Ports
from tasks.ledgers import patrol
from tests.stack.conftest import SHORT, Stack, free_ports, new_stack
from tests.support.waiting import until

LINES = 50
"""What a screen holds."""


class Takes(BaseHTTPRequestHandler):
    """An address for alerts."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = new_stack(tmp_path_factory.mktemp("operator"), **SHORT)
    with HTTPServer(("127.0.0.1", 0), Takes) as address:
        threading.Thread(target=address.serve_forever, daemon=True).start()
        (stack.state / "secrets").mkdir(parents=True, mode=0o700)
        url = f"json://127.0.0.1:{address.server_address[1]}/\n"
        (stack.state / "secrets" / "alert.urls").write_text(url)
        started = stack.ggen("up", "--detach")
        assert started.returncode == 0, started.stderr
        yield stack
        stack.ggen("down")
        address.shutdown()


@pytest.fixture(scope="module")
def ports(stack: Stack) -> Ports:
    return open_ports(stack.settings)


def screen(stack: Stack) -> str:
    lines = stack.ggen("status").stdout.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= 80
    return " ".join(" ".join(lines).split())


@pytest.fixture(scope="module")
def failing(stack: Stack) -> str:
    """An action of ``acme`` whose undo keeps failing."""
    stack.subscribe("acme")
    signal = {"signal_id": "s", "type": "demo.rollback_fails", "payload": {"times": 100}}
    answer = stack.signal("acme", signal)
    assert answer.status_code == 202, answer.text
    where = answer.headers["Location"]
    until(lambda: stack.read(where)["state"] == "rollback_failed", 30)
    return str(answer.json()["action_id"])


def test_who_is_failing_and_whom_does_it_hurt(stack: Stack, failing: str) -> None:
    shown = screen(stack)

    assert "demo.rollback_fails fails for acme: 1 actions hurts acme" in shown


def test_why_and_since_when(stack: Stack, failing: str, ports: Ports) -> None:
    action = ports.documents.get(f"tenants/acme/actions/{failing}")
    assert action

    assert f"why DEMO_ROLLBACK_FAILURE since {action.data['accepted_at']}" in screen(stack)


def test_is_it_healing(stack: Stack, failing: str) -> None:
    assert "1 rollbacks fail; tried again at 20" in screen(stack)


def test_what_do_i_do_now(stack: Stack, failing: str) -> None:
    told = json.loads(stack.ggen("status", "--json").stdout)
    do = next(p["do"] for p in told["problems"] if "rollback_fails" in p["what"])

    done = stack.ggen(*shlex.split(do)[1:])
    assert done.returncode == 0
    assert "rollback failed" in done.stdout
    assert "Incident 5" in screen(stack)


def test_which_alert_went_where(stack: Stack, failing: str) -> None:
    until(lambda: "last rollback_failed (" in screen(stack), 30)

    shown = screen(stack)
    assert ") to json 1, " in shown
    assert "0 undelivered" in shown


def test_what_is_lost_in_an_outage_and_does_it_heal(stack: Stack, ports: Ports) -> None:
    ports.modes.begin_drill(Drill(drill_id="d", fault=Fault.REFUSE), 600)
    try:
        until(lambda: ports.modes.health(Scope.ALL).is_degraded, 60)
        shown = screen(stack)
    finally:
        ports.modes.end_drill("d")

    assert "the system refuses new work" in shown
    assert "hurts everybody" in shown
    assert "heals by itself, once the store answers" in shown
    assert "lost nothing accepted: " in shown
    until(lambda: stack.ggen("status").returncode == 0, 60)


def test_what_the_last_upgrade_changed(stack: Stack, tmp_path: Path) -> None:
    stack.subscribe("acme")
    sample = json.loads(Path("config/policies/demo-sku.professional.json").read_text())
    sample["policy_version"] = "1.1.0"
    sample["quota"]["concurrent_actions"] += 1
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(sample))
    assert stack.ggen("policy", "upgrade", str(file)).returncode == 0

    shown = screen(stack)
    assert "policy demo-sku professional 1.0.0 -> 1.1.0 at " in shown
    diff = stack.ggen("policy", "diff", "demo-sku", "professional", "1.0.0", "1.1.0")
    assert "ggen policy diff demo-sku professional 1.0.0 1.1.0" in shown
    assert "concurrent_actions" in diff.stdout


def test_is_the_ledger_whole(stack: Stack, ports: Ports) -> None:
    stack.subscribe("spoilt")
    until(lambda: "0 wait for a seal" in screen(stack), 30)
    assert patrol.judge(ports, "spoilt", "everything", 0) is None
    assert "no fault found" in screen(stack)

    with closing(sqlite3.connect(stack.state / "documents.db", timeout=30)) as store, store:
        changed = store.execute(
            "UPDATE documents SET data = replace(data, 'duration_ms', 'spoilt_ms') "
            "WHERE path LIKE 'tenants/spoilt/receipts/%'"
        )
        assert changed.rowcount
    assert patrol.judge(ports, "spoilt", "everything", 0) is None

    assert "the ledger of spoilt does not hold" in screen(stack)
    assert "BROKEN: spoilt" in screen(stack)
    assert "ggen verify-ledger --account-id spoilt" in screen(stack)


def test_from_another_machine_the_same_overview_is_read_from_the_stores(
    stack: Stack, failing: str, tmp_path: Path
) -> None:
    away = tmp_path / "away"
    for name in ("keys", "secrets"):
        shutil.copytree(stack.state / name, away / name)
    settings = stack.settings
    stores = {
        "GGEN_MEMORY_URL": memory_url(settings),
        "GGEN_DOCUMENTS_URL": f"sqlite://{settings.state_dir}/documents.db",
    }
    elsewhere = Stack(away, *free_ports(3), {**SHORT, **stores})

    told = elsewhere.ggen("status", "--json")

    assert told.returncode == 0, told.stdout + told.stderr
    answer = json.loads(told.stdout)
    assert answer["components"] == {}
    assert answer["heard"]["programs"] == {"actions": 1, "health": 1, "ingress": 1, "runbooks": 1}
    assert answer["heard"]["children"] == 8
    assert answer["failing"][0]["action_id"] == failing
    assert "beat fired" in elsewhere.ggen("status").stdout

    nowhere = {**stores, "GGEN_MEMORY_URL": "redis://127.0.0.1:1"}
    told = Stack(away, *free_ports(3), nowhere).ggen("status", "--json")
    assert told.returncode == 5
    assert "Valkey does not answer" in json.loads(told.stdout)["missing"]["memory"]
