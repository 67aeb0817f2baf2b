"""A copy made while the stack runs, an hour of work after it, and the copy put back."""

import io
import json
import shutil
import sqlite3
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from adapters.local.system import free_ports
from cli.backup import keys
from config.settings import Settings
from tests.stack.conftest import GGEN, SHORT, Stack, new_stack
from tests.support.waiting import until

PASSPHRASE = "a passphrase of some length"


def _signals(stack: Stack, account_id: str, start: int, count: int) -> None:
    for number in range(start, start + count):
        signal = {"signal_id": f"s{number}", "type": "demo.succeed", "payload": {}}
        answer = stack.signal(account_id, signal)
        assert answer.status_code == 202, answer.text


def _sealed(stack: Stack, account_id: str) -> int:
    told = stack.ggen("verify-ledger", "--account-id", account_id, "--json")
    return int(json.loads(told.stdout)["sealed"])


def _archive(stack: Stack, account_id: str, folder: Path) -> Path:
    file = folder / f"{account_id}.tar.gz"
    made = stack.ggen(
        "export-receipts", "--account-id", account_id, "--format", "archive", "--output", str(file)
    )
    assert made.returncode == 0, made.stderr
    return file


def _rows(told: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, Any]]:
    return {row["account_id"]: row for row in json.loads(told.stdout)["ledgers"]}


class Story:
    """A copy of ``acme`` and ``calm``; then more of ``acme``, and ``later``; an archive of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stack = new_stack(folder, **SHORT)
        self.passphrase = folder / "passphrase"
        self.passphrase.write_text(PASSPHRASE + "\n")
        self.keys = folder / "keys.sealed"
        started = self.stack.ggen("up", "--detach")
        assert started.returncode == 0, started.stderr
        for account_id in ("acme", "calm"):
            self.stack.subscribe(account_id)
        _signals(self.stack, "acme", 0, 5)
        until(lambda: _sealed(self.stack, "acme") == 6, 30)
        self.copy = self._copy()
        self.stack.subscribe("later")
        _signals(self.stack, "acme", 5, 7)
        until(lambda: _sealed(self.stack, "acme") == 13, 30)
        until(lambda: _sealed(self.stack, "later") == 1, 30)
        self.archive = _archive(self.stack, "acme", folder)
        assert self.stack.ggen("down").returncode == 0

    def _copy(self) -> Path:
        made = self.stack.ggen(
            "backup",
            str(self.folder / "copies"),
            "--keys",
            str(self.keys),
            "--passphrase-file",
            str(self.passphrase),
            "--json",
        )
        assert made.returncode == 0, made.stderr
        told = json.loads(made.stdout)
        assert told["sealed_receipts"] >= 7
        return Path(told["folder"])


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    story = Story(tmp_path_factory.mktemp("backup"))
    yield story
    story.stack.ggen("down")


def test_a_copy_holds_no_key_and_no_secret(story: Story) -> None:
    secret = story.stack.secrets.read("master.key").encode()
    files = [path for path in story.copy.rglob("*") if path.is_file()]

    assert {path.relative_to(story.copy).parts[0] for path in files} == {
        "documents.db",
        "manifest.json",
        "objects",
    }
    assert not [path for path in [*files, story.keys] if secret in path.read_bytes()]


def test_what_an_older_copy_lacks_is_named_and_nothing_is_signed_over_it(story: Story) -> None:
    stack = story.stack
    told = stack.ggen("restore", str(story.copy), "--replace", "--json")

    assert told.returncode == 1
    rows = _rows(told)
    assert rows["acme"]["missing"] == 7
    assert rows["later"]["missing"] == 1
    assert rows["calm"]["is_valid"]
    signed = sorted(path.name for path in (stack.state / "objects/checkpoints/acme").iterdir())
    with closing(sqlite3.connect(stack.state / "documents.db")) as store:
        assert store.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    assert stack.ggen("up", "--detach").returncode == 0
    try:
        _signals(stack, "acme", 100, 1)
        _signals(stack, "calm", 0, 1)
        until(lambda: _sealed(stack, "calm") == 2, 30)
        until(lambda: "ledger of acme does not hold" in stack.ggen("status").stdout, 30)
        (proof,) = stack.receipts("_system", operation="store_restored")
        assert proof["ledgers_behind"] == 2
    finally:
        stack.ggen("down")
    assert sorted(p.name for p in (stack.state / "objects/checkpoints/acme").iterdir()) == signed


def test_an_archive_made_since_still_proves_what_the_store_lacks(story: Story) -> None:
    trust = story.folder / "keys.json"
    assert story.stack.ggen("keys", "export", "--output", str(trust)).returncode == 0
    told = story.stack.ggen(
        "verify-archive",
        str(story.archive),
        "--trust",
        str(trust),
        "--account-id",
        "acme",
        "--json",
    )

    assert told.returncode == 0, told.stdout
    assert json.loads(told.stdout)["sealed"] == 13


def test_on_an_empty_machine_copy_and_keys_are_enough(story: Story, tmp_path: Path) -> None:
    other = new_stack(tmp_path, **SHORT)
    wrong = tmp_path / "wrong"
    wrong.write_text("another passphrase\n")
    named = ["--keys", str(story.keys)]

    without = other.ggen("restore", str(story.copy))
    assert (without.returncode, "there are no keys" in without.stderr) == (2, True)
    refused = other.ggen("restore", str(story.copy), *named, "--passphrase-file", str(wrong))
    assert (refused.returncode, "does not open" in refused.stderr) == (3, True)
    assert not (other.state / "documents.db").exists()

    opened = [*named, "--passphrase-file", str(story.passphrase)]
    for kill_after_s in (0.7, 0.9, 1.1, 1.3, 1.5):  # wherever it is killed, it goes on
        process = subprocess.Popen(
            [*GGEN, "restore", str(story.copy), *opened, "--replace"],
            env=other.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    told = other.ggen("restore", str(story.copy), *opened, "--replace", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    assert _rows(told)["acme"]["sealed"] == 6
    assert other.ggen("up", "--detach").returncode == 0
    try:
        assert other.subscribe("after")["operation"] == "entitlement_active"
        _signals(other, "acme", 300, 1)
        until(lambda: _sealed(other, "acme") == 7, 30)
    finally:
        other.ggen("down")


def test_a_rehearsal_leaves_the_memory_of_a_running_stack_alone(
    story: Story, tmp_path: Path
) -> None:
    """The copy's password opens it, and the port is the same."""
    running = story.stack
    http, flower = free_ports(2)
    rehearsal = Stack(tmp_path / "state", http, flower, running.valkey_port, SHORT)
    opened = ["--keys", str(story.keys), "--passphrase-file", str(story.passphrase)]
    assert running.ggen("up", "--detach").returncode == 0
    try:
        port, password = running.valkey_port, running.secrets.read("valkey.password")
        with redis.Redis(port=port, password=password, db=1) as memory:
            era = memory.dump("ggen:era")
            first = rehearsal.ggen("restore", str(story.copy), *opened)
            assert first.returncode == 0, first.stderr
            again = rehearsal.ggen("restore", str(story.copy), "--replace")
            assert era
            assert memory.dump("ggen:era") == era
        assert again.returncode == 4
        assert "did their work just now" in again.stderr
        assert running.ggen("status").returncode == 0
    finally:
        running.ggen("down")


def test_a_copy_that_was_changed_is_refused(story: Story, tmp_path: Path) -> None:
    changed = tmp_path / "copy"
    shutil.copytree(story.copy, changed)
    with (changed / "documents.db").open("ab") as file:
        file.write(b"x")

    told = story.stack.ggen("restore", str(changed), "--replace")

    assert told.returncode == 2
    assert "documents.db was changed" in told.stderr


def test_other_keys_are_not_mixed_with_those_that_are_here(story: Story, tmp_path: Path) -> None:
    other = new_stack(tmp_path)
    assert other.ggen("prepare").returncode == 0

    told = other.ggen(
        *("restore", str(story.copy), "--replace", "--keys", str(story.keys)),
        *("--passphrase-file", str(story.passphrase)),
    )

    assert told.returncode == 4
    assert "other keys or secrets are here" in told.stderr
    assert not list(other.state.glob("before-restore-*"))


def test_no_name_in_a_file_of_keys_leaves_its_folders(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in (f"keys/{tmp_path}/out", "keys/../../out", "keys/./x", "other/x", "keys/good"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))

    assert keys.restore(settings, packed.getvalue()) == 1
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["good"]


def test_a_ledger_that_is_broken_keeps_no_other_from_being_copied(
    story: Story, tmp_path: Path
) -> None:
    other = new_stack(tmp_path)
    opened = ["--keys", str(story.keys), "--passphrase-file", str(story.passphrase)]
    assert other.ggen("restore", str(story.copy), *opened).returncode == 0
    with closing(sqlite3.connect(other.state / "documents.db")) as store, store:
        store.execute("UPDATE documents SET data = '{}' WHERE path LIKE 'tenants/acme/seals/%'")

    made = other.ggen("backup", str(tmp_path / "copies"), "--json")

    assert made.returncode == 0, made.stderr
    assert list(json.loads(made.stdout)["broken"]) == ["acme"]


def test_a_store_is_not_replaced_unasked(story: Story) -> None:
    told = story.stack.ggen("restore", str(story.copy))

    assert told.returncode == 4
    assert "--replace sets it aside" in told.stderr
