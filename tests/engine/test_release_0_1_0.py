"""What release 0.1.0 wrote is read, verified, resumed and archived by every later one."""

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.audit.verify_archive import Against, verify_archive
from governor import paths
from governor.fsm import RUN_OPEN, RunState
from governor.runs import Run
from governor.times import instant
from ledger.keys import fingerprint, parse_ring
from ports import Ports
from ports.documents import every
from tasks import ticks
from tasks.actions.execute import execute
from tasks.actions.recover import roll_back
from tasks.archives.write import write_archive
from tasks.celery import app
from tasks.health.rebuild import rebuild
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.verify_receipt import verify_receipt
from tasks.receipts import spool
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tests.conftest import Valkey
from tests.engine.conftest import close
from tests.support.actions import action_of, operations
from tests.support.ledgers import audit, faults
from tests.support.runs import LaterClock, later, play, run_of
from tests.support.stores import Stores

FIXTURE = Path(__file__).parents[1] / "fixtures" / "v0.1.0"
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text())
NAMED: dict[str, str] = EXPECTED["named"]
ACCOUNTS = ("acme", "beta", "delta", "epsilon", "gamma", "_system")


@pytest.fixture
def old(tmp_path: Path, valkey: Valkey) -> Iterator[Ports]:
    """The state directory of that release, opened by this one; Memory starts empty."""
    redis.Redis.from_url(valkey.url).flushall()
    with tarfile.open(FIXTURE / "state.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    opened = Stores(tmp_path / "state", valkey.url).open()
    yield opened
    close(opened)


def test_the_fixture_is_whole(old: Ports) -> None:
    found = {d.data["operation"] for d in every(old.documents, "receipts", group=True)}

    assert set(EXPECTED["operations"]) <= found
    assert sorted(old.spool.names("spool/")) == EXPECTED["spooled"]
    assert len(old.keys.ring().keys) == 2
    for name, state in EXPECTED["states"].items():
        identity = NAMED[name]
        is_run = identity.startswith("run-")
        now = run_of(old, identity).state if is_run else action_of(old, identity).state
        assert now == state


def test_every_ledger_and_every_receipt_of_it_is_valid(old: Ports) -> None:
    for account_id in ACCOUNTS:
        assert not faults(old, account_id)
    for document in every(old.documents, "receipts", group=True):
        account_id, _, receipt_id = document.path.split("/")[1:]
        verdict = verify_receipt(old, account_id, receipt_id)
        assert verdict.is_valid, [f for f in verdict.findings if not f.holds]


def test_its_archive_is_valid_for_this_verifier_and_for_its_own(tmp_path: Path) -> None:
    judged = verify_archive(FIXTURE / "acme.tar.gz", against=Against(FIXTURE / "keys.json"))
    assert judged.report.is_valid, judged.report.findings
    assert judged.report.sealed == EXPECTED["archived_receipts"]

    with tarfile.open(FIXTURE / "acme.tar.gz") as tar:
        tar.extractall(tmp_path, filter="data")
    ring = parse_ring((FIXTURE / "keys.json").read_bytes())
    trusted = [word for key in ring for word in ("--fingerprint", fingerprint(key.key))]
    for script in (tmp_path / "verify.py", Path("ledger/auditor/verify.py").absolute()):
        done = subprocess.run(
            [sys.executable, "-I", script, *trusted, tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout


def test_open_work_is_resumed_to_its_end_and_archived(old: Ports, tmp_path: Path) -> None:
    ports = later(old)
    assert rebuild(ports, 600)
    assert spool.drain(ports) == 0
    assert action_of(ports, NAMED["spooled_complete"]).state == "complete"
    assert operations(ports, NAMED["spooled_rolled_back"])[-1] == "action_rolled_back"

    _play_to_the_end(ports)

    assert action_of(ports, NAMED["lost"]).state == "rolled_back"
    assert action_of(ports, NAMED["rollback_failed"]).state == "rolled_back"
    assert operations(ports, NAMED["pending"]) == ["action_timeout"]  # it waited far too long
    assert run_of(ports, NAMED["parked"]).state is RunState.REFUSED
    assert run_of(ports, NAMED["running"]).state is RunState.FAILED
    for account_id in ACCOUNTS:
        while not seal_ledger(ports, account_id):
            pass
        assert not faults(ports, account_id)
        assert audit(ports, account_id).unsealed == 0
    path, trust = tmp_path / "again.tar.gz", tmp_path / "keys.json"
    with path.open("wb") as target:
        write_archive(ports, "acme", target)
    trust.write_text(ports.keys.ring().model_dump_json(exclude_none=True))
    extended = verify_archive(path, against=Against(trust, FIXTURE / "acme.tar.gz"))
    assert extended.report.is_valid, extended.report.findings
    assert extended.report.extends


def _play_to_the_end(ports: Ports) -> None:
    """What the workers and the reaper do with everything that is open."""
    assert isinstance(ports.clock, LaterClock)
    for _ in range(20):
        ticks.look(ports)
        for name in ("lost", "pending", "rollback_failed"):
            execute(ports, "acme", NAMED[name])
            roll_back(ports, "acme", NAMED[name])
        undoing = action_of(ports, NAMED["rollback_failed"])
        due = [undoing.retry_at] if undoing.state != "rolled_back" else []
        for document in every(ports.documents, "runs"):
            run = Run.stored(document.data)
            if run.state in RUN_OPEN:
                run = play(ports, run.run_id, RUNBOOK)
            if run.state in RUN_OPEN:
                due.append(run.retry_at)
        if not due:
            return
        for at in filter(None, due):
            ports.clock.sleep_until(instant(at))
    raise AssertionError(
        [d.data for d in every(ports.documents, "runs") if d.data["state"] in RUN_OPEN]
    )


def test_the_paths_of_that_release_are_those_of_this_one(old: Ports) -> None:
    for path in (paths.tenant_path("acme"), paths.entitlement_path("acme", "demo-sku")):
        assert old.documents.get(path), path


def test_every_task_name_of_that_release_is_still_known() -> None:
    """Its workers and beat run beside ours for a while (docs/upgrading.md)."""
    names = """audit.slice audit.watch canary.sing degrade_to_safe_mode.check deliver_alerts.deliver
        entitlement_lifecycle.run execute_action.run reap.sweep recover_action.roll_back
        repair.topics revive.dead_letters seal.sweep tally.receipt""".split()
    app.loader.import_default_modules()

    assert set(names) <= set(app.tasks)
