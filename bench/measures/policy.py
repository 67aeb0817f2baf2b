"""An upgrade measured: from the flip to the last of 10,000 governors, and the comparison itself."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread

from adapters.local.waiting import until
from adapters.wiring import open_ports
from bench.figures import Figures, spread, timed
from bench.load import Load
from bench.measures.ledger import fill, until_sealed
from bench.stack import Driver, family
from governor import paths
from governor.compatibility import check
from governor.fsm import EntitlementState, GovernorState
from governor.policy import ActionSpec, Policy, Quota, Transition
from governor.tenancy import Entitlement, Tenant
from governor.times import instant
from ingress.client import checked
from ports import Ports
from ports.documents import Create
from tasks.governors import policies
from tasks.governors.broadcast import Process
from tasks.governors.broadcast import processes as processes_of

GOVERNORS = 10_000
_AT_ONCE = 200
_AT = "2026-01-01T00:00:00.000000Z"
_SKU, _PLAN = "bench-upgrade", "starter"


def broadcast(driver: Driver) -> Figures:
    """Until each process has answered for a version, under load, with 1,000 and 10,000 governors.

    Meanwhile receipts of another tenant are committed, and each is timed until it is sealed.
    """
    ports = open_ports(driver.settings)
    policies.register(ports, _document(ports, "1.0.0", 5))
    driver.subscribe("bench-busy")
    figures: Figures = {}
    number, governors = 0, 0
    for count in (1_000, GOVERNORS):
        for first in range(governors, count, _AT_ONCE):
            _governors(ports, range(first, first + _AT_ONCE))
        governors, heard_ms, sealed_ms = count, list[float](), list[float]()
        with Load(driver.settings, "bench-busy", per_s=20), _seals(driver, count, sealed_ms):
            for _ in range(20 if count < GOVERNORS else 5):
                number += 1
                run_id = _post(driver, ports, f"1.{number}.0", 5 + number)
                until(partial(_has_ended, driver, run_id), 300, 0.1)
                heard_ms += _heard_ms(ports, f"1.{number}.0")
        figures |= {f"{count}_{k}": v for k, v in spread(heard_ms).items()}
        figures |= {f"{count}_sealed_{k}": v for k, v in spread(sealed_ms).items()}
    ports.documents.close()
    met = max(figures[f"{count}_p99_ms"] for count in (1_000, GOVERNORS)) < 500
    return figures | {"bar": "p99 < 500 ms", "met": met}


def _post(driver: Driver, ports: Ports, version: str, limit: int) -> str:
    answer = checked(driver.post_policy(json.loads(_document(ports, version, limit))))
    return str(answer.json()["run_id"])


def _has_ended(driver: Driver, run_id: str) -> bool:
    return bool(driver.read(f"/v1/runs/{run_id}")["state"] == "complete")


def _heard_ms(ports: Ports, version: str) -> list[float]:
    """How long after the flip each process answered."""

    def processes() -> list[Process]:
        return processes_of(ports, _SKU, _PLAN, version)

    until(lambda: all(each["state"] == "ack" for each in processes()), 30, 0.05)
    pointer = policies.pointer_of(ports, _SKU, _PLAN)
    flipped = instant(str(pointer.data["flipped_at"] if pointer else ""))
    answered = [instant(each["answered_at"] or "") for each in processes()]
    return [(at - flipped).total_seconds() * 1000 for at in answered]


@contextmanager
def _seals(driver: Driver, count: int, took_ms: list[float]) -> Iterator[None]:
    """Meanwhile, how long each receipt of another tenant waits for its seal."""
    ports, account_id, is_over = open_ports(driver.settings), f"bench-beside-{count}", Event()

    def emit() -> None:
        while not is_over.is_set():
            fill(ports, account_id, 1, start=len(took_ms))
            waited_s = until_sealed(driver.settings, account_id, len(took_ms) + 1, within_s=60)
            took_ms.append(1000 * waited_s)

    emitter = Thread(target=emit)
    emitter.start()
    try:
        yield
    finally:
        is_over.set()
        emitter.join()
        ports.documents.close()


def upgrade(driver: Driver) -> Figures:
    """A version in force in 10,000 governors: receipts a second, and until the last is booted."""
    ports = open_ports(driver.settings)
    policies.register(ports, _document(ports, "1.0.0", 5))
    for first in range(0, GOVERNORS, _AT_ONCE):
        _governors(ports, range(first, first + _AT_ONCE))
    processes = family(driver.settings)
    before = {each.pid: each.memory_info().rss for each in processes}
    most = dict(before)
    began = time.monotonic()
    run_id = _post(driver, ports, "1.1.0", 6)

    def has_ended() -> bool:
        most.update({e.pid: max(most[e.pid], e.memory_info().rss) for e in processes})
        return _has_ended(driver, run_id)

    until(has_ended, 300, 0.2)
    seconds = time.monotonic() - began
    ports.documents.close()
    grown = {pid: (most[pid] - before[pid]) / 2**20 for pid in before}
    return {
        "governors": GOVERNORS,
        "whole_s": round(seconds, 1),
        "per_s": round(GOVERNORS / seconds),
        "most_grown_process_mib": round(max(grown.values()), 1),
        "all_grown_mib": round(sum(grown.values()), 1),
        "bar": "< 30 s",
        "met": seconds < 30,
    }


def stopped(driver: Driver) -> Figures:
    """A worker stopped before a version: until it alone is shown silent, and until it answers."""
    ports = open_ports(driver.settings)
    policies.register(ports, _document(ports, "1.0.0", 5))

    def are_silent(pids: list[int], version: str) -> bool:
        told = processes_of(ports, _SKU, _PLAN, version)
        return [each["pid"] for each in told if each["state"] == "silent"] == pids

    listening = processes_of(ports, _SKU, _PLAN, "1.0.0")
    pid = next(each["pid"] for each in listening if each["role"] == "actions")
    shown_ms, answered_ms = [], []
    for number in range(1, 21):
        version = f"1.{number}.0"
        os.kill(pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            run_id = _post(driver, ports, version, 5 + number)
            until(partial(are_silent, [pid], version), 30, 0.02)
            shown_ms.append(1000 * (time.monotonic() - began))
        finally:
            os.kill(pid, signal.SIGCONT)
        began = time.monotonic()
        until(partial(are_silent, [], version), 30, 0.02)
        answered_ms.append(1000 * (time.monotonic() - began))
        until(partial(_has_ended, driver, run_id), 30, 0.1)
    ports.documents.close()
    figures = {f"shown_{k}": v for k, v in spread(shown_ms).items()}
    figures |= {f"answered_{k}": v for k, v in spread(answered_ms).items()}
    met = max(shown_ms) < 2000 and max(answered_ms) < 1000
    return figures | {"bar": "shown < 2 s, answered < 1 s", "met": met}


def compatibility(_driver: Driver) -> Figures:
    """A version of full size (200 states, 2,000 transitions, 500 actions) compared with another."""
    old, new = _largest("1.0.0", 100), _largest("1.1.0", 200)
    took_ms = [timed(lambda: check(new, [old])) for _ in range(20)]
    return {
        **spread(took_ms),
        "findings": len(check(new, [old])),
        "bar": "< 100 ms",
        "met": max(took_ms) < 100,
    }


def _document(ports: Ports, version: str, limit: int) -> bytes:
    sample = policies.in_force(ports, "demo-sku", _PLAN)
    quota = sample.quota.model_copy(
        update={"concurrent_actions": limit, "max_concurrent_actions": 50}
    )
    changed = {"sku_id": _SKU, "policy_version": version, "quota": quota}
    return sample.model_copy(update=changed).model_dump_json(exclude_none=True).encode()


def _governors(ports: Ports, numbers: range) -> None:
    writes = []
    for number in numbers:
        account_id = f"bench-upgrade-{number}"
        tenant = Tenant(
            account_id=account_id,
            generation=1,
            fsm_id=paths.fsm_id(account_id, 1),
            topic=paths.topic_name(account_id),
            state=GovernorState.STABLE,
            region="us-central1",
            created_at=_AT,
            created_by="bench",
        )
        entitlement = Entitlement(
            account_id=account_id,
            sku_id=_SKU,
            entitlement_id=_SKU,
            plan_type=_PLAN,
            policy_version="1.0.0",
            region="us-central1",
            state=EntitlementState.ACTIVE,
            operating_state="active",
            concurrent_actions=5,
            monthly_actions=1000,
            event_time=_AT,
            run_id="bench",
        )
        writes += [
            Create(paths.tenant_path(account_id), tenant.document()),
            Create(paths.entitlement_path(account_id, _SKU), entitlement.document()),
        ]
    ports.documents.commit(writes)


def _largest(version: str, timeout_ms: int) -> Policy:
    names = [f"a{n}" for n in range(500)]
    states = [f"s{n}" for n in range(200)]
    return Policy(
        sku_id="large",
        plan_type="starter",
        policy_version=version,
        quota=Quota(monthly_actions=1),
        actions={name: ActionSpec(handler=f"h.{name}", timeout_ms=timeout_ms) for name in names},
        signals={f"k.{name}": name for name in names},
        permissions=frozenset(names),
        initial_state="s0",
        states=frozenset(states),
        transitions=tuple(
            Transition(source=state, event=f"e{n}", target="s0")
            for state in states
            for n in range(10)
        ),
    )


MEASUREMENTS: dict[str, Callable[[Driver], Figures]] = {"compatibility": compatibility}
ON_REQUEST: dict[str, Callable[[Driver], Figures]] = {
    each.__name__: each for each in (upgrade, broadcast, stopped)
}
