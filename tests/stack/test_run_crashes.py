"""``kill -9`` of a real worker at every write of a run, with a real beat and a real reaper.

Within 10 s, with nobody's help, there is a governor with all its resources and one
``entitlement_active``, or none of them and one ``entitlement_failed``.
"""

import contextlib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from adapters.wiring import open_ports
from config.settings import Settings
from governor import paths
from governor.fsm import RunState
from governor.quota import Verdict
from ports import Ports
from ports.signals import Topic
from tests.engine.runs.test_run_crashes import WRITES
from tests.stack.conftest import Stack, created, held
from tests.support.cancel import WRITES as WRITES_OF_A_CANCELLATION
from tests.support.runs import (
    everything_is_there,
    has_key,
    memory_knows,
    nothing_is_left,
    operations,
    run_of,
)
from tests.support.waiting import until

pytestmark = pytest.mark.alone

AT_ONCE = 6
CASES = [f"dies-{name}-{at}" for name, count in WRITES.items() for at in range(1, count + 1)]


@pytest.fixture
def dying_worker(stack: Stack) -> Iterator[None]:
    """In the place of the stack's own runbooks worker."""
    with held(stack), _dying(stack):
        yield


@contextlib.contextmanager
def _dying(stack: Stack) -> Iterator[None]:
    worker = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "celery",
            "-q",
            "-A",
            "tests.stack.dying_worker",
            "worker",
            "-Q",
            "runbooks,ledger",
            "-c",
            "2",
            "-n",
            "dying@%h",
            "--without-gossip",
            "--without-mingle",
        ],
        env=stack.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        worker.terminate()
        try:
            worker.wait(20)
        except subprocess.TimeoutExpired:  # it can wait for a child that died meanwhile
            worker.kill()
            worker.wait()


@pytest.fixture
def ports(stack: Stack) -> Iterator[Ports]:
    opened = open_ports(
        Settings(
            state_dir=stack.state,
            http_port=stack.http_port,
            flower_port=stack.flower_port,
            valkey_port=stack.valkey_port,
        )
    )
    yield opened
    opened.documents.close()
    opened.memory.close()


@pytest.mark.usefixtures("dying_worker")
def test_killed_at_any_write_a_run_ends_whole_or_gone_within_ten_seconds(
    stack: Stack, ports: Ports
) -> None:
    assert stack.webhook(created("dies-not")).status_code in (200, 202)
    until(lambda: everything_is_there(ports, "dies-not"))
    took_s: dict[str, float] = {}

    def subscribe(account_id: str) -> None:
        began = time.monotonic()
        stack.webhook(created(account_id))
        run_id = paths.run_id(f"event-of-{account_id}")
        until(lambda: run_of(ports, run_id).receipt_id)
        took_s[account_id] = time.monotonic() - began

    for first in range(0, len(CASES), AT_ONCE):
        batch = CASES[first : first + AT_ONCE]
        threads = [threading.Thread(target=subscribe, args=(account_id,)) for account_id in batch]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    for account_id in CASES:
        assert (stack.state / f"{account_id}.died").exists()
        told = [o for o in operations(ports, account_id) if o.startswith("entitlement")]
        if "succeeds" in account_id:
            assert everything_is_there(ports, account_id), account_id
            assert told == ["entitlement_active"], account_id
        else:
            assert nothing_is_left(ports, account_id), account_id
            assert told == ["entitlement_failed"], account_id
    assert max(took_s.values()) < 10, took_s
    assert len(took_s) == len(CASES)


@pytest.mark.usefixtures("dying_worker")
def test_killed_at_any_write_a_cancellation_ends_once_with_one_archive(
    stack: Stack, ports: Ports, pytestconfig: pytest.Config
) -> None:
    every_so_many = 1 if pytestconfig.getoption("--thorough") else 3
    numbers = range(1, WRITES_OF_A_CANCELLATION + 1, every_so_many)
    accounts = [f"dies-cancels-{at}" for at in numbers]

    def come_and_go(account_id: str) -> None:
        stack.subscribe(account_id)
        event = {"event_type": "entitlement.cancelled", "event_id": f"cancel-of-{account_id}"}
        stack.webhook(created(account_id, **event))
        run_id = paths.run_id(f"cancel-of-{account_id}")
        until(lambda: run_of(ports, run_id).state is RunState.COMPLETE)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(come_and_go, accounts))

    for account_id in accounts:
        assert operations(ports, account_id).count("decommission_complete") == 1, account_id
        archives = [n for n in ports.archives.names(f"{account_id}/") if n.endswith(".tar.gz")]
        assert len(archives) == 1, account_id
        # Memory hears of the end after its commit, from another process where this one died there.
        until(partial(_is_forgotten, ports, account_id))
        assert not has_key(ports, account_id)
        assert ports.signals.look(account_id, "us-central1") is Topic.ABSENT
    died = [(stack.state / f"{account_id}.died").exists() for account_id in accounts]
    # Without a message on its topic it has fewer writes.
    assert died.index(False) > 30 / every_so_many
    assert not any(died[died.index(False) :])


def _is_forgotten(ports: Ports, account_id: str) -> bool:
    return memory_knows(ports, account_id) is Verdict.UNKNOWN_TENANT


def _deliver(stack: Stack, account_id: str) -> None:
    """Deliver as a marketplace does: again, where the answer is 503."""
    until(lambda: stack.webhook(created(account_id)).status_code != 503, 60)


def test_a_run_whose_message_is_lost_is_taken_up_by_the_reaper(stack: Stack, ports: Ports) -> None:
    import redis

    with held(stack):
        poster = threading.Thread(target=lambda: _deliver(stack, "lost-message"))
        poster.start()
        run_id = paths.run_id("event-of-lost-message")
        until(lambda: ports.documents.get(paths.run_path(run_id)))
        with redis.Redis(
            port=stack.valkey_port, db=0, password=stack.secrets.read("valkey.password")
        ) as broker:
            until(lambda: broker.llen("runbooks"))
            broker.flushdb()
    until(lambda: everything_is_there(ports, "lost-message"), 10)
    poster.join()

    assert operations(ports, "lost-message") == ["entitlement_active"]
