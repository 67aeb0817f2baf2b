"""No secret in a log, a task argument, a result, Flower or a process list."""

import stat
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from tests.stack.conftest import Stack
from tests.support.waiting import until


def _values(stack: Stack) -> dict[str, str]:
    found = {
        str(p.relative_to(stack.state)): p.read_text().strip()
        for folder in ("secrets", "keys")
        for p in (stack.state / folder).rglob("*")
        if p.is_file() and p.name != "current"
    }
    return {name: value for name, value in found.items() if value}


@pytest.fixture(scope="module", autouse=True)
def _used(stack: Stack) -> None:
    stack.subscribe("secretive")
    stack.signal("secretive", {"signal_id": "s", "type": "demo.succeed"})
    stack.webhook({"event_type": "entitlement.created"}, secret="wrong")  # pragma: allowlist secret


def test_secret_files_are_for_their_owner_alone(stack: Stack) -> None:
    kept = [*(stack.state / "secrets").rglob("*"), *(stack.state / "keys").rglob("*")]
    assert len(kept) > 10
    for path in [stack.state, *kept]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode in ((0o700, 0o600)[path.is_file()],), f"{path}: {mode:o}"


def test_the_log_tells_no_secret(stack: Stack) -> None:
    log = stack.log()

    assert [name for name, value in _values(stack).items() if value in log] == []


def test_no_command_line_or_configuration_others_read_tells_one(stack: Stack) -> None:
    supervisor = psutil.Process(int((stack.state / "run" / "supervisord.pid").read_text()))
    lines = " ".join(
        " ".join(p.cmdline()) for p in [supervisor, *supervisor.children(recursive=True)]
    )

    assert [name for name, value in _values(stack).items() if value in lines] == []
    for path in (stack.state / "run").iterdir():
        if path.is_file() and any(
            v in path.read_bytes().decode("latin-1") for v in _values(stack).values()
        ):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_flower_needs_its_password_changes_nothing_and_tells_no_secret(stack: Stack) -> None:
    url = f"http://127.0.0.1:{stack.flower_port}"
    password = (stack.state / "secrets" / "flower.password").read_text().strip()
    with httpx.Client(base_url=url, trust_env=False, timeout=10) as http:
        assert http.get("/api/tasks").status_code == 401
        owner = ("ggen", password)
        until(lambda: "execute_action.run" in http.get("/api/tasks", auth=owner).text)
        assert http.post("/api/worker/shutdown/actions@x", auth=owner).status_code == 403
        shown = http.get("/api/tasks", auth=owner).text + http.get("/workers", auth=owner).text
    assert [name for name, value in _values(stack).items() if value in shown] == []


def test_nothing_in_valkey_holds_one(stack: Stack) -> None:
    password = stack.secrets.read("valkey.password")
    found = b""
    for database in (0, 1, 2):
        client = redis.Redis(port=stack.valkey_port, db=database, password=password)
        for key in client.scan_iter():
            found += key + (client.dump(key) or b"")  # some keys live for a moment
        client.close()

    assert [n for n, v in _values(stack).items() if v.encode() in found] == []


def test_valkey_is_closed_to_whoever_lacks_its_password(stack: Stack) -> None:
    client = redis.Redis(port=stack.valkey_port)
    with pytest.raises(redis.AuthenticationError):
        client.ping()
    client.close()


def test_documents_hold_none(stack: Stack) -> None:
    files = [p for p in Path(stack.state).glob("documents.db*") if p.is_file()]
    stored = b"".join(p.read_bytes() for p in files)

    assert len(files) >= 2

    assert [n for n, v in _values(stack).items() if v.encode() in stored] == []
