"""One whole running stack for the session, started and driven as a user would."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adapters.local.fair_lock import FairLock
from adapters.local.secret_files import SecretFiles
from adapters.local.system import free_ports
from cli.stack.supervisor import processes
from config.settings import Settings
from governor.errors import OutageError
from ingress.client import Client
from tests.support import commands

GGEN = [sys.executable, "-P", "-m", "ggen_governor.start"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "actions"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/stack/" in str(item.path):
            item.add_marker(pytest.mark.stack)


@dataclass
class Stack:
    """A state directory, its ports, and the ways in."""

    state: Path
    http_port: int
    flower_port: int
    valkey_port: int
    more: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("GGEN_")}
        return {
            **inherited,
            "GGEN_STATE_DIR": str(self.state),
            "GGEN_HTTP_PORT": str(self.http_port),
            "GGEN_FLOWER_PORT": str(self.flower_port),
            "GGEN_VALKEY_PORT": str(self.valkey_port),
            **self.more,
        }

    @property
    def settings(self) -> Settings:
        return Settings(
            state_dir=self.state,
            http_port=self.http_port,
            flower_port=self.flower_port,
            valkey_port=self.valkey_port,
        )

    @property
    def secrets(self) -> SecretFiles:
        return SecretFiles(self.state / "secrets")

    def ggen(self, *arguments: str, timeout: float = 90) -> "subprocess.CompletedProcess[str]":
        is_forked = arguments[:1] not in (("up",), ("demo",), ("run",), ("bench",))
        if is_forked and "PYTHONPATH" not in self.more:
            return commands.ggen(arguments, self.environment, timeout=timeout)
        return subprocess.run(
            [*GGEN, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def log(self) -> str:
        """All that every program wrote."""
        files = sorted((self.state / "log").iterdir())
        return "\n".join(file.read_text(errors="replace") for file in files)

    def http(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.http_port}", timeout=20, trust_env=False
        )

    def client(self) -> Client:
        return Client(self.settings, timeout_s=20)

    def webhook(
        self, event: dict[str, Any] | bytes, *, secret: str | None = None, **headers: str
    ) -> httpx.Response:
        with self.client() as client:
            return _repeated(lambda: client.post_webhook(event, secret=secret, headers=headers))

    def subscribe(self, account_id: str, plan_type: str = "professional") -> dict[str, Any]:
        """A webhook's receipt; it is sent again while its run goes on, as a marketplace does."""
        event = created(account_id, plan_type=plan_type)
        answers = (self.webhook(event) for _ in range(10))  # each waits for some seconds
        answer = next((each for each in answers if each.status_code != 202), None)
        assert answer
        assert answer.status_code == 200, answer.text
        receipt: dict[str, Any] = answer.json()
        return receipt

    def signal(self, account_id: str, signal: dict[str, Any] | bytes) -> httpx.Response:
        with self.client() as client:
            return _repeated(lambda: client.post_signal(account_id, signal))

    def read(self, path: str, **query: Any) -> Any:
        with self.client() as client:
            return client.read(path, **query)

    def receipts(self, account_id: str, **query: Any) -> list[dict[str, Any]]:
        with self.client() as client:
            return client.receipts(account_id, **query)


def _repeated(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, asked for again as every sender does where the machine's disk stalled.

    A commit then waits for the write lock longer than a second, and nothing was written.
    """
    for _ in range(4):
        answer = send()
        if answer.status_code != 503 or "write-lock-timeout" not in answer.text:
            return answer
        time.sleep(float(answer.headers["Retry-After"]))
    return send()


def created(account_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "event_type": "entitlement.created",
        "event_id": f"event-of-{account_id}",
        "account_id": account_id,
        "sku_id": "demo-sku",
        "plan_type": "professional",
        **changes,
    }


@contextlib.contextmanager
def held(stack: Stack) -> Iterator[None]:
    """The stack's runbooks worker is held still: what it would consume waits.

    Never in the middle of a write: everybody's writes would wait for it, and be refused.
    """
    worker = processes(stack.settings)["runbooks"]
    family = [worker, *worker.children()]
    while not _stands_aside(stack, family):
        for process in family:
            process.resume()
    try:
        yield
    finally:
        for process in family:
            process.resume()


def _stands_aside(stack: Stack, family: list[psutil.Process]) -> bool:
    for process in family:
        process.suspend()
    queue = FairLock(stack.state / "documents.db.queue")
    for _ in range(2):  # the first may wait behind one that was stopped as it waited
        with contextlib.suppress(OutageError), queue.held(2):
            return True
    return False


def install_example(folder: Path) -> Path:
    """A folder in which ``examples/actions`` is installed, for ``PYTHONPATH``."""
    source, site = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source)  # a build leaves folders behind where it stands
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--target",
            site,
            source,
        ],
        check=True,
        capture_output=True,
    )
    return site


SHORT = {
    "GGEN_HEALTH_INTERVAL_S": "1",
    "GGEN_PROBE_INTERVAL_S": "0.5",
    "GGEN_LEASE_S": "5",
    "GGEN_TALLY_INTERVAL_S": "1",
}
"""Intervals of a stack that is to notice, and to heal, soon."""


def new_stack(folder: Path, **more: str) -> Stack:
    http, flower, valkey = free_ports(3)
    return Stack(folder / "state", http, flower, valkey, more)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    running = new_stack(tmp_path_factory.mktemp("stack"), GGEN_TALLY_INTERVAL_S="2")
    started = running.ggen("up", "--detach")
    assert started.returncode == 0, started.stderr
    yield running
    stopped = running.ggen("down")
    assert stopped.returncode == 0, stopped.stderr
