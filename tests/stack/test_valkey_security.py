"""Valkey behind TLS, with a user for each use that may do what that use needs (docs/threat-model.md)."""

import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from adapters.local.system import free_ports
from cli.stack.valkey import valkey_binary
from tests.stack.conftest import SHORT, Stack, new_stack
from tests.support import tls
from tests.support.waiting import until

PAGE = (Path(__file__).parents[2] / "docs" / "threat-model.md").read_text()
PASSWORD = secrets.token_hex(8)
USERS = re.findall(r"^user .*$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Valkey with the users of the page."""
    folder, (port,) = tmp_path_factory.mktemp("valkey-acl"), free_ports(1)
    (folder / "users.acl").write_text("\n".join(USERS).replace("PASSWORD", PASSWORD) + "\n")
    command = [valkey_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    more = ["--aclfile", str(folder / "users.acl"), "--appendonly", "yes", "--save", ""]
    process = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL)
    yield port
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def stack(server: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("acl")
    public, private = tls.certificate(folder, "valkey")
    with tls.door(server, public, private) as port:
        urls = {
            f"GGEN_{name.upper()}_URL": f"rediss://ggen-{name}:{PASSWORD}@127.0.0.1:{port}/{number}"
            f"?ssl_cert_reqs=required&ssl_ca_certs={public}"
            for number, name in enumerate(("broker", "memory", "signals"))
        }
        stack = new_stack(folder, **SHORT, **urls)
        started = stack.ggen("up", "--detach")
        assert started.returncode == 0, started.stderr + stack.log()[-3000:]
        yield stack
        stack.ggen("down")


def test_the_whole_stack_works_with_these_rights_alone(stack: Stack) -> None:
    stack.subscribe("acme")
    sent = stack.ggen("send-signal", "--account-id", "acme", "--wait")
    assert sent.returncode == 0, sent.stderr
    pushed = stack.ggen("send-signal", "--account-id", "acme", "--via", "topic")
    assert pushed.returncode == 0, pushed.stderr
    until(lambda: len(stack.receipts("acme", operation="action_complete")) == 2, 30)
    cancelled = stack.ggen(
        "send-webhook", "--account-id", "acme", "--event-type", "entitlement.cancelled"
    )
    assert cancelled.returncode == 0, cancelled.stderr
    assert stack.ggen("status").returncode == 0
    assert "NOPERM" not in stack.log()


@pytest.mark.parametrize(
    ("user", "database", "command"),
    [
        ("ggen-memory", 1, ["FLUSHALL"]),
        ("ggen-memory", 1, ["LPUSH", "actions", "a message of my own"]),
        ("ggen-signals", 2, ["CONFIG", "GET", "*"]),
        ("ggen-signals", 2, ["SET", "actions", "x"]),
        ("ggen-broker", 0, ["SHUTDOWN"]),
        ("ggen-broker", 0, ["KEYS", "*"]),
    ],
)
def test_a_user_may_not_do_what_its_use_does_not_need(
    server: int, user: str, database: int, command: list[str]
) -> None:
    with (
        redis.Redis(port=server, db=database, username=user, password=PASSWORD) as client,
        pytest.raises(redis.exceptions.NoPermissionError),
    ):
        client.execute_command(*command)


def test_without_a_user_there_is_no_way_in(server: int) -> None:
    with redis.Redis(port=server) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


def test_another_certificate_is_refused(server: int, tmp_path: Path) -> None:
    ours, _ = tls.certificate(tmp_path, "ours")
    public, private = tls.certificate(tmp_path, "theirs")
    with tls.door(server, public, private) as port:
        url = f"rediss://ggen-memory:{PASSWORD}@127.0.0.1:{port}/1?ssl_cert_reqs=required&ssl_ca_certs={ours}"
        with (
            redis.Redis.from_url(url) as client,
            pytest.raises(redis.exceptions.ConnectionError, match="certificate"),
        ):
            client.ping()
