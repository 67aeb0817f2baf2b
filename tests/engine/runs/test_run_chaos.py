"""Many processes at the same few runs, with faults, deaths and an operator, at random.

Whatever happened, in the end each account has a governor with all its resources under the newest
event that succeeded, or nothing at all; and every attempt has exactly one receipt of its end.
"""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from typing import Any

import pytest

from governor import paths
from governor.errors import ConflictError, GovernorError, OutageError
from governor.fsm import RunState
from governor.runs import JournalEntry, Run
from ports import Ports
from ports.documents import Query
from tasks import publish
from tasks.marketplace import begin
from tasks.runbooks import RUNBOOKS
from tasks.runbooks.entitlement_lifecycle import RUNBOOK
from tasks.runs import failure, operators
from tasks.runs.definition import Result, Runbook
from tests.engine.conftest import event
from tests.support.runs import (
    carry_on,
    everything_is_there,
    later,
    nothing_is_left,
    play_to_the_end,
    receipts,
    run_of,
    with_step,
)

SECONDS = 4.0
ACCOUNTS = ("acme", "other")
PLANS = ("starter", "professional", "enterprise")


def _unsteady() -> Runbook:
    """The runbook, each of whose steps and undos fails now and then, before or after it acted."""
    runbook = RUNBOOK
    for each in RUNBOOK.steps:

        def act(ports: Ports, run: Run, inner: Any = each.act) -> Result:
            dice = random.random()
            if dice < 0.1:
                raise random.choice([OutageError("down", "down"), ConflictError("moved", "moved")])
            done: Result = inner(ports, run)
            if dice > 0.95:
                raise KeyError("a bug, after it acted")
            return done

        def undo(ports: Ports, run: Run, entry: JournalEntry, inner: Any = each.undo) -> None:
            if random.random() < 0.1:
                raise OutageError("down", "down")
            inner(ports, run, entry)

        runbook = with_step(each.name, act=act, undo=undo, runbook=runbook)
    return runbook


def _work(ports: Ports, run_ids: list[str], until: float, seed: int) -> None:
    random.seed(seed)
    runbook = _unsteady()
    while time.monotonic() < until:
        carry_on(ports, runbook, random.choice(run_ids))
        if random.random() < 0.02:
            os.kill(os.getpid(), signal.SIGKILL)


def _operate(ports: Ports, run_ids: list[str], until: float, seed: int) -> None:
    random.seed(seed)
    while time.monotonic() < until:
        run_id = random.choice(run_ids)
        try:
            if random.random() < 0.1:
                operators.cancel(ports, RUNBOOKS, run_id, "alice", "by chance")
            else:
                operators.resume(ports, RUNBOOKS, run_id)
        except GovernorError:
            pass
        time.sleep(0.02)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_accounts_end_whole_or_empty_and_attempts_receipted_once(
    ports: Ports, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(failure, "PATIENCE_S", 0.02)
    monkeypatch.setattr(publish, "chain", lambda _run, _links: None)
    run_ids = [
        begin(
            ports,
            event(
                event_id=f"e-{n}",
                account_id=ACCOUNTS[n % 2],
                plan_type=PLANS[n % 3],
                event_time=f"2026-11-23T12:00:{n:02}.000000Z",
            ),
            b"{}",
        ).run_id
        for n in range(8)
    ]
    ports.documents.close()
    ports.memory.close()

    _let_loose(ports, run_ids, seed)

    ticking = later(ports)
    for _ in range(2):  # a run may wait for the turn of one that comes after it
        for run_id in run_ids:
            if run_of(ports, run_id).state is not RunState.PENDING or _is_turn_free(ports, run_id):
                play_to_the_end(ticking, run_id)
    for account_id in ACCOUNTS:
        mine = [r for r in (run_of(ports, i) for i in run_ids) if r.account_id == account_id]
        _check_account(ports, account_id, mine)


def _let_loose(ports: Ports, run_ids: list[str], seed: int) -> None:
    context = multiprocessing.get_context("fork")
    until = time.monotonic() + SECONDS

    def spawn(work: Any, n: int) -> Any:
        child = context.Process(target=work, args=(ports, run_ids, until, seed * 1000 + n))
        child.start()
        return child

    workers = [spawn(_work, n) for n in range(4)]
    operator = spawn(_operate, 999)
    born = 4
    while time.monotonic() < until:
        for n, worker in enumerate(workers):
            worker.join(0.02)
            if not worker.is_alive():
                workers[n] = spawn(_work, born)
                born += 1
    for child in (*workers, operator):
        child.join(30)
        assert not child.is_alive()


def _is_turn_free(ports: Ports, run_id: str) -> bool:
    account_id = run_of(ports, run_id).account_id
    return ports.documents.get(paths.turn_path(f"account/{account_id}")) is None


def _check_account(ports: Ports, account_id: str, mine: list[Run]) -> None:
    complete = [run for run in mine if run.state is RunState.COMPLETE]
    if complete:
        assert everything_is_there(ports, account_id)
        newest = max(complete, key=lambda run: run.inputs["event_time"])
        (entitlement,) = ports.documents.scan(Query(f"tenants/{account_id}/entitlements"))
        assert entitlement.data["plan_type"] == newest.inputs["plan_type"]
    else:
        assert nothing_is_left(ports, account_id)
    told = [r for r in receipts(ports, account_id) if r["operation"].startswith("entitlement")]
    assert len({r["receipt_id"] for r in told}) == len(told)
    ends = Counter(r["run_id"] for r in told)
    for run in mine:
        own = run.receipt_id in {r["receipt_id"] for r in told if r["run_id"] == run.run_id}
        assert ends[run.run_id] == (run.attempt if own else run.attempt - 1)
