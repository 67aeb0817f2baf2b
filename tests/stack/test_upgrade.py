"""From release 0.1.0, built from its commit, to this one with work in flight; and back by a copy.

It builds a wheel and an environment of its own, so that it is part of ``make upgrade`` and the
nightly run. What 0.1.0 stored is tested each time, by ``tests/engine/test_release_0_1_0.py``.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from cli.stack.supervisor import processes
from tests.stack.conftest import GGEN, SHORT, Stack, new_stack
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
COMMIT = "8019229"

pytestmark = [pytest.mark.nightly, pytest.mark.alone, pytest.mark.timeout(900)]


class Release:
    """``ggen`` of 0.1.0."""

    def __init__(self, folder: Path) -> None:
        source, self.bin = folder / "source", folder / "venv" / "bin"
        if subprocess.run(["git", "cat-file", "-e", COMMIT], cwd=ROOT, check=False).returncode:
            pytest.skip(f"this clone has no commit {COMMIT}: git fetch --unshallow")
        _run("git", "clone", "--quiet", "--shared", str(ROOT), str(source))
        _run("git", "-C", str(source), "checkout", "--quiet", COMMIT)
        _run(sys.executable, "-m", "venv", str(folder / "venv"))
        pip = [str(self.bin / "pip"), "install", "--quiet"]
        _run(*pip, "--require-hashes", "-r", str(source / "requirements.lock"))
        _run(*pip, "--no-deps", "--no-build-isolation", str(source))

    def ggen(self, stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        return subprocess.run(
            [str(self.bin / "ggen"), *arguments],
            env={**inherited, **stack.environment},
            cwd=self.bin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def runs(self, stack: Stack, program: str) -> "subprocess.Popen[bytes]":
        return _started([str(self.bin / "ggen"), "run", program], stack)

    def works(self, stack: Stack, *arguments: str) -> str:
        done = self.ggen(stack, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _started(command: list[str], stack: Stack) -> "subprocess.Popen[bytes]":
    """A program in a process group of its own."""
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.Popen(
        command,
        env={**inherited, **stack.environment},
        cwd=stack.state,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _start_work(old: Release, stack: Stack) -> None:
    """Actions that run and wait, a run that no worker has, and a store that takes no write."""
    old.works(stack, "send-webhook", "--account-id", "acme", "--plan-type", "professional")
    for _ in range(3):
        old.works(stack, "send-signal", "--account-id", "acme", "--wait")
    for number in range(12):
        sleep = ["--type", "demo.sleep", "--payload", '{"seconds": 20}']
        old.works(stack, "send-signal", "--account-id", "acme", "--signal-id", f"w{number}", *sleep)
    worker = processes(stack.settings)["runbooks"]
    for process in (worker, *worker.children()):
        process.suspend()
    assert old.ggen(stack, "send-webhook", "--account-id", "late").returncode in (0, 5)


def _end_in_an_outage(old: Release, stack: Stack) -> None:
    with closing(
        sqlite3.connect(stack.state / "documents.db", timeout=30, isolation_level=None)
    ) as store:
        store.execute("BEGIN IMMEDIATE")
        until(lambda: old.ggen(stack, "status").returncode != 0, 90)
        assert old.ggen(stack, "down").returncode == 0
        store.execute("ROLLBACK")


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release(tmp_path_factory.mktemp("old"))


ORDER = (("actions", "runbooks", "health"), ("beat", "pump"), ("ingress",))
"""The order of docs/upgrading.md: who works first, who sends last."""


def test_programs_are_replaced_in_order_while_signals_come(tmp_path: Path, old: Release) -> None:
    stack = new_stack(tmp_path, **SHORT)
    old.works(stack, "prepare")
    programs = {"valkey": old.runs(stack, "valkey")}
    sent = 0
    try:
        for name in ("ingress", "actions", "runbooks", "health", "beat", "pump"):
            programs[name] = old.runs(stack, name)
        until(lambda: old.ggen(stack, "status").returncode == 0, 90)
        old.works(stack, "send-webhook", "--account-id", "acme", "--plan-type", "professional")
        assert stack.ggen("prepare").returncode == 0
        for names in ORDER:
            for name in names:
                _end(programs.pop(name))
                programs[name] = _started([*GGEN, "run", name], stack)
            until(lambda: stack.ggen("status").returncode == 0, 90)
            for number in range(5):
                signal_id = f"{names[0]}-{number}"
                done = stack.ggen("send-signal", "--account-id", "acme", "--signal-id", signal_id)
                assert done.returncode == 0, done.stderr
                sent += 1
        until(lambda: len(stack.receipts("acme", operation="action_complete")) == sent, 60)
        assert stack.ggen("send-webhook", "--account-id", "new").returncode == 0
        for account_id in ("acme", "new"):
            verified = stack.ggen("verify-ledger", "--account-id", account_id)
            assert verified.returncode in (0, 6), verified.stdout
    finally:
        for process in programs.values():
            _end(process)


def test_what_was_in_flight_goes_on_and_the_copy_leads_back(tmp_path: Path, old: Release) -> None:
    stack = new_stack(tmp_path, **SHORT)
    try:
        old.works(stack, "up", "--detach")
        _start_work(old, stack)
        _end_in_an_outage(old, stack)
    finally:
        old.ggen(stack, "down")
    queue = shutil.ignore_patterns("documents.db.queue")  # locks, made again
    shutil.copytree(stack.state, tmp_path / "before", symlinks=True, ignore=queue)

    started = stack.ggen("up", "--detach")
    assert started.returncode == 0, started.stderr
    try:
        until(lambda: not json.loads(stack.ggen("runs", "list", "--open", "--json").stdout), 120)
        for state in ("pending", "running", "rolling_back"):
            listed = ["actions", "list", "--state", state, "--json"]
            until(lambda listed=listed: json.loads(stack.ggen(*listed).stdout) == [], 120)  # type: ignore[misc]
        ends = [r["operation"] for r in stack.receipts("acme", limit=100)]
        assert (
            sum(
                1 for each in ends if each in ("action_complete", "action_timeout", "action_failed")
            )
            == 15
        )
        again = stack.ggen("send-signal", "--account-id", "acme", "--wait")
        assert again.returncode == 0, again.stderr
        assert stack.ggen("send-webhook", "--account-id", "new").returncode == 0
        for account_id in ("acme", "late", "new", "_system"):
            verified = stack.ggen("verify-ledger", "--account-id", account_id)
            assert verified.returncode in (0, 6), verified.stdout
        cancelled = stack.ggen(
            "send-webhook", "--account-id", "acme", "--event-type", "entitlement.cancelled"
        )
        assert cancelled.returncode == 0, cancelled.stderr
    finally:
        stack.ggen("down")

    shutil.rmtree(stack.state)
    shutil.copytree(tmp_path / "before", stack.state, symlinks=True)
    old.works(stack, "up", "--detach")
    try:
        until(lambda: old.ggen(stack, "status").returncode == 0, 60)
        old.works(stack, "send-signal", "--account-id", "acme", "--wait")
        until(lambda: old.ggen(stack, "verify-ledger", "--account-id", "acme").returncode == 0, 60)
    finally:
        old.ggen(stack, "down")
