"""The ggen command: what it prints, its exit codes, and the life of a stack."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.stack.conftest import GGEN, SHORT, Stack, new_stack
from tests.support.waiting import until


def _members(stack: Stack) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("GGEN_STATE_DIR") == str(stack.state):
                found.append(process)
        except psutil.Error:
            continue
    return [p for p in found if p.pid != os.getpid()]


def _component(stack: Stack, name: str) -> psutil.Process | None:
    for process in _members(stack):
        try:
            if process.environ().get("SUPERVISOR_PROCESS_NAME") == name and (
                process.parent() is not None and "cli.stack.supervise" in process.parent().cmdline()
            ):
                return process
        except psutil.Error:
            continue
    return None


def test_a_webhook_and_a_signal_by_command(stack: Stack) -> None:
    sent = stack.ggen("send-webhook", "--account-id", "cmd", "--standard", "--json")
    assert json.loads(sent.stdout)["operation"] == "entitlement_active"

    action = stack.ggen("send-signal", "--account-id", "cmd", "--wait", "--json")
    assert json.loads(action.stdout)["state"] == "complete"

    listed = stack.ggen("receipts", "--account-id", "cmd", "--json")
    assert [r["operation"] for r in json.loads(listed.stdout)["items"]] == [
        "action_complete",
        "entitlement_active",
    ]


def test_a_limit_is_scaled_by_command(stack: Stack) -> None:
    stack.subscribe("cmd-scale", plan_type="professional")

    reckoned = stack.ggen("scale", "cmd-scale", "--concurrency", "50", "--dry-run")
    assert "20 -> 50 actions at once" in reckoned.stdout
    assert "nothing was changed" in reckoned.stdout
    done = stack.ggen("scale", "cmd-scale", "--concurrency", "50", "--json")
    assert json.loads(done.stdout)["operation"] == "governor_scaled"
    refused = stack.ggen("scale", "cmd-scale", "--concurrency", "101")

    assert refused.returncode == 3
    assert "max_concurrent_actions is 100, asked for 101" in refused.stderr
    assert stack.read("/v1/tenants/cmd-scale")["in_flight_action_limit"] == 50
    history = stack.ggen("scale", "cmd-scale", "--history")
    assert [line.split("  ")[1][:14] for line in history.stdout.splitlines()] == [
        "refused: 50 ->",
        "20 -> 50 actio",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["verify-receipt", "--receipt-id", "none", "--account-id", "cmd"], 2, "no receipt"),
        (["send-webhook", "--account-id", "a/b"], 2, "account_id"),
        (["send-webhook", "--account-id", "cmd-none", "--sku-id", "none"], 2, "no policy"),
        (["send-signal", "--account-id", "cmd", "--type", "demo.none"], 3, "permits"),
        (["send-signal", "--account-id", "cmd", "--payload", "{"], 2, "not JSON"),
        (["receipts", "--account-id", "cmd", "--operation", "none"], 2, "operation is one of"),
        (["schema", "none"], 2, "operation is one of"),
        (["bench", "--only", "none"], 2, "none of"),
        (["no-such-command"], 2, "No such command"),
        (["scale", "x y", "--concurrency", "50"], 2, "is no account id"),
        (["scale", "cmd-none", "--concurrency", "50"], 2, "has no entitlement"),
        (["policy", "status", "no-sku", "starter"], 2, "no policy is registered"),
        (["policy", "upgrade", "pyproject.toml"], 2, "not valid JSON"),
    ],
    ids=range(13),
)
def test_errors_are_one_helpful_line_and_the_exit_code_of_their_family(
    stack: Stack, arguments: list[str], code: int, says: str
) -> None:
    stack.ggen("send-webhook", "--account-id", "cmd", "--event-id", "cmd-once")

    answer = stack.ggen(*arguments)

    assert answer.returncode == code, answer.stderr
    assert says in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_error_is_a_json_value_too(stack: Stack) -> None:
    answer = stack.ggen("verify-receipt", "--receipt-id", "x", "--account-id", "cmd", "--json")

    assert json.loads(answer.stdout)["error"]["code"] == "no-such-receipt"


def test_the_schemas_are_published(stack: Stack) -> None:
    schemas = json.loads(stack.ggen("schema", "--json").stdout)

    assert schemas["action_complete"]["1"]["properties"]["operation"]["const"] == "action_complete"
    newest = json.loads(stack.ggen("schema", "action_failed", "--json").stdout)
    first = json.loads(stack.ggen("schema", "action_failed", "--version", "1", "--json").stdout)
    assert newest == schemas["action_failed"]["2"]
    assert first == schemas["action_failed"]["1"]
    assert stack.ggen("schema", "action_failed", "--version", "9").returncode == 2


def test_what_is_not_there_is_an_error_and_says_what_there_is(stack: Stack, tmp_path: Path) -> None:
    nobody = stack.ggen("receipts", "--account-id", "nobody-here")
    assert (nobody.returncode, "no account nobody-here" in nobody.stderr) == (2, True)
    assert stack.ggen("receipts", "--account-id", "x", "--operation", "imagined").returncode == 2
    stack.subscribe("listed")
    tenants = [line.split() for line in stack.ggen("tenant", "list").stdout.splitlines()]
    assert ["listed", "stable", "demo-sku/professional", "1.0.0"] in tenants
    policies = [line.split() for line in stack.ggen("policy", "list").stdout.splitlines()]
    assert ["demo-sku", "starter", "1.0.0"] in policies
    assert "valkey" in stack.ggen("logs", "--lines", "10000").stdout
    elsewhere = new_stack(tmp_path)
    for command in (
        ["runs", "list"],
        ["tenant", "list"],
        ["policy", "list"],
        ["actions", "list"],
        ["logs"],
        ["verify-ledger", "--account-id", "x"],
        ["status"],
        ["receipts", "--account-id", "x"],
        ["alerts", "list"],
    ):
        done = elsewhere.ggen(*command)
        assert done.returncode == 5, command
        assert "ggen up" in done.stderr + done.stdout, command


def test_rows_of_receipts_fit_eighty_columns(stack: Stack) -> None:
    stack.subscribe("narrow")
    stack.ggen(
        "send-signal",
        "--account-id",
        "narrow",
        "--type",
        "demo.sleep",
        "--payload",
        '{"seconds": 2}',
        "--wait",
    )

    lines = stack.ggen("receipts", "--account-id", "narrow").stdout.splitlines()

    assert max(map(len, lines)) <= 80


def test_status_says_what_runs(stack: Stack) -> None:
    answer = stack.ggen("status", "--json")

    assert answer.returncode == 0
    status = json.loads(answer.stdout)
    assert status["ready"] is True
    assert set(status["components"]) == {
        "valkey",
        "ingress",
        "health",
        "actions",
        "runbooks",
        "beat",
        "pump",
        "flower",
    }


def test_a_second_start_in_the_same_directory_is_refused_with_the_reason(stack: Stack) -> None:
    for arguments in (["up"], ["up", "--detach"]):
        answer = stack.ggen(*arguments)

        assert answer.returncode == 4
        assert "runs in" in answer.stderr
        assert "ggen down" in answer.stderr
    assert stack.ggen("status").returncode == 0


def test_where_nothing_runs_commands_say_so_and_what_to_do(tmp_path: Path) -> None:
    stack = new_stack(tmp_path)

    for arguments in (["receipts", "--account-id", "x"], ["send-signal", "--account-id", "x"]):
        answer = stack.ggen(*arguments)
        assert answer.returncode == 5
        assert f"no stack runs in {stack.state}" in answer.stderr
        assert "ggen up" in answer.stderr
    assert stack.ggen("status").returncode == 5


def test_a_terminal_that_is_closed_ends_the_demo_and_all_it_started(tmp_path: Path) -> None:
    demo = subprocess.Popen(
        [*GGEN, "demo"],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pidfile = until(lambda: next(tmp_path.glob("*/run/supervisord.pid"), None))
    supervisor = psutil.Process(int(until(pidfile.read_text)))
    until(supervisor.children)
    family = [supervisor, *supervisor.children(recursive=True)]
    demo.send_signal(signal.SIGHUP)
    demo.wait(30)

    _gone, alive = psutil.wait_procs(family, 10)
    assert alive == []
    assert list(tmp_path.iterdir()) == []


def test_a_busy_port_is_named_with_its_setting(tmp_path: Path) -> None:
    stack = new_stack(tmp_path)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", stack.flower_port))
        holder.listen()

        answer = stack.ggen("up", "--detach")

    assert answer.returncode == 5
    assert f"port {stack.flower_port} is busy" in answer.stderr
    assert "GGEN_FLOWER_PORT" in answer.stderr
    assert _members(stack) == []


@pytest.mark.parametrize(
    ("spoil", "code", "says"),
    [
        (lambda s: (s.state / "keys" / "current").write_text("\n"), 5, "malformed"),
        (lambda s: next((s.state / "keys").glob("*.pem")).write_text("x"), 5, "malformed"),
        (lambda s: (s.state / "secrets" / "master.key").write_text("short"), 5, "malformed"),
        (lambda s: s.more.update(GGEN_HTTP_PROT="1"), 2, "GGEN_HTTP_PORT"),
        (lambda s: s.more.update(GGEN_DOCUMENTS_URL="mysql://x"), 2, "no backend"),
        (lambda s: s.more.update(GGEN_STATE_DIR="/proc/nowhere"), 5, "GGEN_STATE_DIR"),
    ],
    ids=[
        "no current key",
        "malformed key",
        "malformed master",
        "unknown setting",
        "unknown backend",
        "unusable directory",
    ],
)
def test_a_bad_start_is_one_line_that_says_what_to_do(
    tmp_path: Path, spoil: object, code: int, says: str
) -> None:
    stack = new_stack(tmp_path)
    from adapters.local.key_files import KeyFiles
    from adapters.local.secret_files import SecretFiles

    SecretFiles(stack.state / "secrets").create_missing()
    KeyFiles(stack.state / "keys", "ledger.example").create_missing()
    spoil(stack)  # type: ignore[operator]

    answer = stack.ggen("up", "--detach")

    assert answer.returncode == code, answer.stderr
    assert says in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1
    assert _members(stack) == []


def test_in_the_foreground_ctrl_c_ends_every_process_and_the_state_survives(tmp_path: Path) -> None:
    stack = new_stack(tmp_path, **SHORT)
    foreground = subprocess.Popen(
        [*GGEN, "up"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    with foreground:
        assert foreground.stdout
        assert foreground.stdout.readline() == "ready\n"
        receipt = stack.subscribe("kept")
        sleeping = stack.signal(
            "kept", {"signal_id": "s", "type": "demo.sleep", "payload": {"seconds": 9}}
        )
        assert sleeping.status_code == 202
        started = time.monotonic()
        foreground.send_signal(signal.SIGINT)
        foreground.wait(20)
    assert time.monotonic() - started <= 10
    assert _members(stack) == []

    assert stack.ggen("up", "--detach").returncode == 0
    try:
        assert receipt in stack.receipts("kept")
        assert stack.ggen("send-signal", "--account-id", "kept", "--wait").returncode == 0
        state = until(
            lambda: (
                s
                if (s := stack.read(sleeping.headers["Location"])["state"])
                in ("rolled_back", "complete")
                else None
            )
        )
        assert state == "rolled_back"
        for name in ("valkey", "actions", "ingress"):
            process = until(lambda name=name: _component(stack, name))  # type: ignore[misc]
            process.kill()
            until(
                lambda name=name, pid=process.pid: (p := _component(stack, name)) and p.pid != pid  # type: ignore[misc]
            )
        until(lambda: stack.ggen("status").returncode == 0, 60)
        assert stack.ggen("send-signal", "--account-id", "kept", "--wait").returncode == 0
    finally:
        assert stack.ggen("down").returncode == 0
    assert _members(stack) == []
    assert stack.ggen("down").stdout.strip() == "nothing was running"


def test_a_supervisor_that_is_killed_is_replaced(tmp_path: Path) -> None:
    stack = new_stack(tmp_path, **SHORT)
    assert stack.ggen("up", "--detach").returncode == 0
    try:
        pidfile = stack.state / "run" / "supervisord.pid"
        former = int(pidfile.read_text())
        psutil.Process(former).kill()
        until(lambda: pidfile.exists() and int(pidfile.read_text() or former) != former)
        until(lambda: stack.ggen("status").returncode == 0, 60)
        assert stack.subscribe("after")["operation"] == "entitlement_active"
    finally:
        assert stack.ggen("down").returncode == 0
    assert _members(stack) == []
