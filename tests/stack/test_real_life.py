"""Paths, values, files and neighbours of real life: each broke a start, or a stack, before."""

import contextlib
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import redis

from adapters.local.secret_files import SecretFiles
from adapters.local.system import SystemProcesses, free_ports
from cli.stack.supervisor import processes
from governor.records import ProcessClaim
from ingress.signature import sign
from tests.stack.conftest import EXAMPLE, GGEN, SHORT, Stack, created, install_example, new_stack
from tests.support.waiting import until

ODD_PASSWORD = "p@ss:w/rd#1%20'\"é"


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack with everything odd about it that anybody met."""
    folder = tmp_path_factory.mktemp("odd") / "a#1 %d;ü'x"
    folder.mkdir()
    stack = new_stack(
        folder,
        GGEN_HTTP_HOST="::1",
        GGEN_TALLY_INTERVAL_S="2",
        GGEN_PORT="tcp://10.0.0.1:8080",
        GGEN_SERVICE_HOST="10.0.0.1",
        GGEN_SERVICE_PORT_HTTP="80",
        GGEN_PORT_8080_TCP_ADDR="10.0.0.1",
        PYTHONPATH=str(install_example(folder.parent)),
    )
    stack.state.mkdir(mode=0o755)
    SecretFiles(stack.state / "secrets").create_missing()
    (stack.state / "secrets" / "valkey.password").write_text(ODD_PASSWORD + "\n", encoding="utf-8")
    hook = stack.state / "secrets" / "webhook.key"
    secret = hook.read_text().strip()
    hook.write_text(f"\ufeff# the newest\n{secret}\n# old one, kept until May\n{'o' * 16}\n")
    work = folder / "work"
    work.mkdir()
    (work / "tasks.py").write_text("raise SystemExit('the wrong tasks')")
    (work / "config").mkdir()
    (work / "config" / "__init__.py").write_text("raise SystemExit('the wrong config')")
    started = _up(stack, work)
    assert started.returncode == 0, started.stderr
    yield stack
    assert stack.ggen("down").returncode == 0


def _up(stack: Stack, folder: Path) -> "subprocess.CompletedProcess[str]":
    """``ggen up --detach`` as it is installed, in a folder of somebody's, with 1,024 files."""

    def few_files() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))

    command = [Path(sys.executable).with_name("ggen"), "up", "--detach"]
    return subprocess.run(
        command,
        cwd=folder,
        env=stack.environment,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        preexec_fn=few_files,
    )


def _http(stack: Stack) -> httpx.Client:
    return httpx.Client(base_url=f"http://[::1]:{stack.http_port}", timeout=20, trust_env=False)


def _signal(stack: Stack, signal_id: str) -> int:
    done = stack.ggen("send-signal", "--account-id", "odd", "--signal-id", signal_id, "--wait")
    return done.returncode


def test_an_odd_place_with_odd_values_serves(odd: Stack) -> None:
    assert odd.ggen("status").returncode == 0
    sent = odd.ggen("send-webhook", "--account-id", "odd", "--plan-type", "professional")
    assert sent.returncode == 0, sent.stderr
    assert _signal(odd, "s-1") == 0


def test_an_installed_package_of_actions_acts_and_undoes(odd: Stack, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    crm = f"http://127.0.0.1:{port}"
    published = odd.ggen("publish-policy", str(EXAMPLE / "crm.starter.json"))
    assert published.returncode == 0, published.stderr
    assert odd.ggen("send-webhook", "--account-id", "crm", "--sku-id", "crm").returncode == 0
    send = ("send-signal", "--account-id", "crm", "--type", "seats.added", "--wait", "--json")
    asked = ("--payload", json.dumps({"number": 3, "crm": crm}))
    with _receiver(tmp_path, port):
        added = odd.ggen(*send, *asked)
        assert added.returncode == 0, added.stderr
        assert _seats(crm) == 3
    failed = odd.ggen(*send, *asked)  # nothing answers, neither the handler nor its rollback
    assert failed.returncode == 8
    with _receiver(tmp_path, port):
        show = ("actions", "show", json.loads(failed.stdout)["action_id"], "--account-id", "crm")
        until(lambda: "rolled_back" in odd.ggen(*show).stdout, 60)
        assert _seats(crm) == 3
    refused = odd.ggen(*send, "--payload", '{"number": 0}')
    assert refused.returncode == 2, refused.stderr


@contextlib.contextmanager
def _receiver(folder: Path, port: int) -> Iterator[None]:
    """The example receiver, as long as the block lasts."""
    script = EXAMPLE.parent / "seats_receiver.py"
    command = [sys.executable, "-I", str(script), str(folder / "seats.db"), str(port)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            until(lambda: _seats(f"http://127.0.0.1:{port}") >= 0)
            yield
        finally:
            running.terminate()


def _seats(crm: str) -> int:
    try:
        return int(httpx.get(f"{crm}/seats", timeout=2).json()["seats"])
    except httpx.TransportError:
        return -1


def test_what_was_open_to_everybody_is_its_owners_alone(odd: Stack) -> None:
    for path in (odd.state, odd.state / "documents.db", odd.state / "secrets", odd.state / "keys"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_only_lines_that_are_no_comments_are_secrets(odd: Stack) -> None:
    secrets = SecretFiles(odd.state / "secrets").webhook_secrets()

    assert len(secrets) == 2
    assert secrets[1] == "o" * 16


@pytest.mark.parametrize(
    ("text", "words"),
    [("x\n", "line 1"), ("# only a comment\n", "empty"), ("a" * 16 + "\nwhsec_??\n", "line 2")],
)
def test_a_malformed_line_is_named_and_not_shown(tmp_path: Path, text: str, words: str) -> None:
    from governor.errors import OutageError

    (tmp_path / "webhook.key").write_text(text)

    with pytest.raises(OutageError, match=words) as refused:
        SecretFiles(tmp_path).webhook_secrets()
    assert "whsec_??" not in refused.value.detail


def test_a_failed_action_ends_the_command_with_its_reason(odd: Stack) -> None:
    done = odd.ggen(
        "send-signal",
        "--account-id",
        "odd",
        "--type",
        "demo.fail",
        "--payload",
        '{"recoverable": true}',
        "--wait",
    )

    assert done.returncode == 8
    assert "rolled_back: DEMO_FAILURE" in done.stderr


def test_the_doors_speak_as_the_standards_say(odd: Stack) -> None:
    token = (odd.state / "secrets" / "api.token").read_text().strip()
    with _http(odd) as http:
        assert http.head("/healthz").status_code == 200
        assert http.head("/readyz").status_code == 200
        headers = {"Authorization": f"bearer {token}"}
        assert http.get("/v1/tenants/odd", headers=headers).status_code == 200


def test_the_same_event_in_other_bytes_gets_the_same_receipt(odd: Stack) -> None:
    from ingress.signature import sign

    event = created("bytes")
    secret = SecretFiles(odd.state / "secrets").webhook_secrets()[0]
    answers = []
    with _http(odd) as http:
        for body in (json.dumps(event), json.dumps({**event, "ignored": 1}, indent=2)):
            signed = {"X-Entitlement-Signature": sign(body.encode(), secret)}
            answers.append(http.post("/v1/webhooks/marketplace", content=body, headers=signed))

    assert [a.status_code for a in answers] == [200, 200]
    assert answers[0].text == answers[1].text


def test_a_header_that_is_too_long_is_refused(odd: Stack) -> None:
    ingress = processes(odd.settings)["ingress"]
    before = ingress.memory_info().rss
    with socket.create_connection(("::1", odd.http_port)) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: ")
        with contextlib.suppress(OSError):
            for _ in range(64):
                client.sendall(b"x" * (1 << 20))
        answer = b""
        with contextlib.suppress(OSError):
            answer = client.recv(1000)
    with _http(odd) as http:
        assert http.get("/healthz", headers={"x": "y" * 40_000}).status_code == 431
        assert http.get("/healthz").status_code == 200
    assert answer == b"" or b" 431 " in answer
    assert ingress.memory_info().rss - before < 16 << 20


def test_an_upload_that_is_given_up_is_one_line_and_counted(odd: Stack) -> None:
    before = odd.log().count("Traceback")
    with socket.create_connection(("::1", odd.http_port)) as client:
        client.sendall(
            b"POST /v1/webhooks/marketplace HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx"
        )

    def is_counted() -> bool:
        told = odd_receipts(odd, "_system", operation="webhook_rejected")
        return any("body-abandoned" in r["by_reason"] for r in told)

    until(is_counted)
    assert odd.log().count("Traceback") == before


def odd_receipts(stack: Stack, account_id: str, **query: str) -> list[dict[str, dict[str, int]]]:
    token = (stack.state / "secrets" / "api.token").read_text().strip()
    with _http(stack) as http:
        answer = http.get(
            f"/v1/tenants/{account_id}/receipts",
            params=query,
            headers={"Authorization": f"Bearer {token}"},
        )
    items: list[dict[str, dict[str, int]]] = answer.json()["items"]
    return items


def test_silent_connections_keep_nobody_out(odd: Stack) -> None:
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )
    before = len(odd.log())
    with contextlib.ExitStack() as held:
        for _ in range(1200):
            held.enter_context(socket.create_connection(("::1", odd.http_port)))
        statuses = []
        for _ in range(100):
            with _http(odd) as http:  # each on a connection of its own
                statuses.append(http.get("/healthz").status_code)
        assert _signal(odd, f"s-held-{time.monotonic_ns()}") == 0

    assert statuses == [200] * 100
    assert len(odd.log()) - before < 100_000


def test_failures_of_one_address_are_refused_and_what_is_signed_is_not(odd: Stack) -> None:
    with _http(odd) as http:
        answers = []
        while len(answers) < 80 and not (answers and answers[-1].status_code == 429):
            answers.append(
                http.post("/v1/tenants/odd/signals", content=b"{}", headers={"X-Signature": "x"})
            )
    *failed, refused = answers
    assert {answer.status_code for answer in failed} == {400}
    assert refused.elapsed.total_seconds() >= 0.5  # else failures take everybody's processor
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")

    assert _signal(odd, "s-after-failures") == 0


def test_a_tenant_whose_signals_keep_being_wrong_waits_and_no_other_does(odd: Stack) -> None:
    made = odd.ggen("send-webhook", "--account-id", "wrong", "--plan-type", "professional")
    assert made.returncode == 0, made.stderr
    key = (odd.state / "secrets" / "tenants" / "wrong.key").read_text().strip()

    def ask(number: int) -> httpx.Response:
        signal = {"signal_id": f"w-{number}", "type": "no.such", "payload": {}}
        body = json.dumps(signal).encode()
        return http.post(
            "/v1/tenants/wrong/signals", content=body, headers={"X-Signature": sign(body, key)}
        )

    with _http(odd) as http, ThreadPoolExecutor(8) as asking:
        answers = list(asking.map(ask, range(400)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {a.status_code for a in answers} == {403, 429}
    assert len(answers) - len(refused) >= 200  # all of them, until there were too many
    assert refused[0].json()["type"] == "urn:ggen:problem:tenant-fails-too-often"
    assert refused[0].headers["retry-after"] == "10"
    sent = odd.ggen("send-webhook", "--account-id", "even", "--plan-type", "professional")
    assert sent.returncode == 0, sent.stderr
    assert odd.ggen("send-signal", "--account-id", "even", "--wait").returncode == 0
    send = ("send-signal", "--account-id", "wrong", "--type", "demo.succeed", "--wait")
    until(lambda: odd.ggen(*send).returncode == 0)


@pytest.mark.parametrize("text", ["[1,2]", "null", "no json", '{"body": 7}', '"x"', "{}"])
def test_what_is_no_message_is_set_aside_and_told(odd: Stack, text: str) -> None:
    from adapters.wiring import embedded_valkey_url

    workers = {name: p.pid for name, p in processes(odd.settings).items()}
    with redis.Redis.from_url(embedded_valkey_url(odd.settings, 0)) as broker:
        for queue in ("actions", "runbooks", "health"):
            broker.lpush(queue, text)
        until(lambda: broker.llen("ggen:aside") >= 3)
        broker.delete("ggen:aside")

    assert _signal(odd, f"s-{text}") == 0
    assert {name: p.pid for name, p in processes(odd.settings).items()} == workers
    told = until(
        lambda: [
            t
            for t in json.loads(odd.ggen("status", "--json").stdout)["troubles"]
            if t["name"].startswith("poison-message/")
        ]
    )
    assert told


def test_a_log_is_rotated_while_it_is_written(odd: Stack) -> None:
    log = odd.state / "log" / "supervisord.log"
    with log.open("ab") as file:
        file.write(b"x" * 11_000_000)

    processes(odd.settings)["flower"].kill()  # which is written down

    until(lambda: log.stat().st_size < 1_000_000)
    assert Path(f"{log}.1").stat().st_size > 10_000_000


def test_a_claim_of_another_container_is_not_judged_from_here() -> None:
    code = (
        "from adapters.local.system import *; from datetime import *;"
        "print(SystemProcesses().claim(datetime.now(UTC)).model_dump_json())"
    )
    inside = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    if inside.returncode:
        pytest.skip(f"no process namespaces here: {inside.stderr[-100:]}")
    claim = ProcessClaim.model_validate_json(inside.stdout)

    assert not SystemProcesses().sees(claim)
    assert not SystemProcesses().is_gone(claim)
    here = claim.evolve(namespace=os.readlink("/proc/self/ns/pid"), pid=2**22 - 1)
    assert SystemProcesses().is_gone(here)


@pytest.mark.parametrize(
    ("host", "boot_id", "is_gone"),
    [
        ("vm-1", "of another boot", True),
        ("localhost", "of another machine", False),
        ("localhost", None, True),
    ],
)
def test_a_machine_that_shares_its_name_is_told_apart_by_its_boot(
    monkeypatch: pytest.MonkeyPatch, host: str, boot_id: str | None, is_gone: bool
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: host)
    here = SystemProcesses()
    claim = here.claim(datetime.now(UTC)).evolve(pid=2**22 - 1)
    other = claim.evolve(boot_id=boot_id or claim.boot_id)

    assert (here.sees(other), here.is_gone(other)) == (is_gone, is_gone)


def test_a_full_disk_is_an_outage_and_no_death(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    stack = new_stack(disk, **SHORT)
    try:
        assert stack.ggen("up", "--detach").returncode == 0
        stack.subscribe("full")
        supervisor = (stack.state / "run" / "supervisord.pid").read_text()
        with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(b"x" * 65536)
        until(lambda: _answer(stack) == 503)
        (disk / "ballast").unlink()
        until(lambda: _answer(stack) == 202, 60)
        assert (stack.state / "run" / "supervisord.pid").read_text() == supervisor
        assert stack.ggen("verify-ledger", "--account-id", "full").returncode in (0, 6)
    finally:
        stack.ggen("down")
        subprocess.run(["umount", "-l", disk], check=False)


def _answer(stack: Stack) -> int:
    answer = stack.signal("full", {"signal_id": f"s-{time.monotonic_ns()}", "type": "demo.succeed"})
    assert answer.status_code in (202, 429) or answer.headers.get("retry-after")
    return answer.status_code


def test_a_command_of_roots_leaves_no_file_of_roots(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can be somebody else")
    try:
        subprocess.run([sys.executable, "-c", ""], user=10_001, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the interpreter is root's alone here")
    stack = new_stack(tmp_path)
    os.chmod(tmp_path, 0o755)
    for parent in list(tmp_path.parents)[:2]:
        os.chmod(parent, 0o755)
    stack.state.mkdir()
    shutil.chown(stack.state, 10_001, 10_001)

    done = subprocess.run(
        [*GGEN, "prepare"], env=stack.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {path.stat().st_uid for path in stack.state.rglob("*")} == {10_001}
