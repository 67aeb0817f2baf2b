"""The wall clock decides neither safety nor proof: it is set under a ledger, a lease, a tick.

What is imitated: one clock port whose hands are set while time goes on, and the clock of a real
Valkey (``bench.chaos.clock``).
"""

import dataclasses
import random
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from adapters.local.system import free_ports
from adapters.valkey.memory import ValkeyMemory
from bench.chaos.clock import WallClock, wall_clock
from cli.audit.verify_archive import Against, verify_archive
from cli.stack.valkey import valkey_binary
from governor.errors import ConflictError
from governor.quota import Verdict
from governor.times import instant
from ports import Ports
from ports.dispatch import Waiting
from ports.documents import Document, Query, every
from ports.slots import Slot
from tasks.archives.write import write_archive
from tasks.health import troubles
from tasks.ledgers import patrol
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.stored_log import StoredLog
from tasks.ledgers.verify_receipt import verify_receipt
from tests.support.leases import lease
from tests.support.ledgers import ACCOUNT, audit, emit, faults, run_sql
from tests.support.waiting import until


class SetClock:
    """A clock that runs as it is told, and whose hands somebody sets.

    Its programs go by the hands, as those do that were started after they were set.
    """

    def __init__(self) -> None:
        self.real = datetime.now(UTC) + timedelta(minutes=1)
        self.set_by = timedelta()

    def now(self) -> datetime:
        return self.real + self.set_by

    def machine(self) -> datetime:
        return self.real + self.set_by

    def monotonic_s(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        self.real += timedelta(seconds=seconds)


class GoingOn:
    """The time of programs that began before the hands were set."""

    def __init__(self, clock: SetClock) -> None:
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.real

    def __getattr__(self, name: str) -> object:
        return getattr(self._clock, name)


def going_on(ports: Ports) -> Ports:
    return dataclasses.replace(ports, clock=GoingOn(ports.clock))  # type: ignore[arg-type]


class Restamped:
    """Documents on a real adapter whose row says of a commit what the machine's clock said then."""

    def __init__(self, ports: Ports, database: Path, clock: SetClock) -> None:
        self._inner, self._database, self._clock = ports.documents, database, clock
        self._last_us = 0

    def commit(self, writes: list[object]) -> list[str]:
        revisions = self._inner.commit(writes)  # type: ignore[arg-type]
        wall_us = (self._clock.machine() - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
            microseconds=1
        )
        self._last_us = max(self._last_us + 1, wall_us)
        for write in writes:
            if "/receipts/" in write.path:  # type: ignore[attr-defined]
                run_sql(
                    self._database,
                    "UPDATE documents SET created_us = ? WHERE path = ?",
                    self._last_us,
                    write.path,
                )  # type: ignore[attr-defined]
        return revisions

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)


@pytest.fixture
def stepped(ports: Ports, tmp_path: Path) -> Ports:
    clock = SetClock()
    documents = Restamped(ports, tmp_path / "documents.db", clock)
    return dataclasses.replace(ports, clock=clock, documents=documents)  # type: ignore[arg-type]


def test_a_week_of_receipts_with_ten_clock_steps_verifies(stepped: Ports, tmp_path: Path) -> None:
    clock, chance = stepped.clock, random.Random(7)
    assert isinstance(clock, SetClock)
    steps = [3600, -3600, -75, 75, 86_400, -86_400, 1800, -7200, 300, -300]
    made = 0
    for hour in range(7 * 24):
        if hour % 17 == 5 and steps:
            clock.set_by += timedelta(seconds=steps.pop(0))
        for _ in range(chance.randrange(3)):
            clock.sleep(chance.uniform(1, 600))
            emit(stepped, f"r{made}")
            made += 1
        assert seal_ledger(going_on(stepped), ACCOUNT)
        clock.sleep(3600)

    assert not steps
    report = audit(stepped)
    assert not report.findings, report.findings[:3]
    assert (report.sealed, report.unsealed) == (made, 0)
    assert 0 < report.clock_off < made
    ids = [
        d.path.rpartition("/")[2] for d in every(stepped.documents, f"tenants/{ACCOUNT}/receipts")
    ]
    one_by_one = [verify_receipt(stepped, ACCOUNT, each) for each in ids]
    assert all(each.is_valid and each.leaf for each in one_by_one)
    assert sum(any(f.off_s for f in each.findings) for each in one_by_one) == report.clock_off
    for _ in range(2):
        reached: int | None = 0
        while reached is not None:
            reached = patrol.judge(stepped, ACCOUNT, "everything", reached)
    told = [d.data["operation"] for d in every(stepped.documents, "tenants/_system/receipts")]
    assert told.count("alert_raised") == 1
    path, trust = tmp_path / "a.tar.gz", tmp_path / "keys.json"
    with path.open("wb") as target:
        write_archive(stepped, ACCOUNT, target)
    trust.write_text(stepped.keys.ring().model_dump_json(exclude_none=True))
    judged = verify_archive(path, against=Against(trust)).report
    assert judged.is_valid
    assert "clock off by up to" in judged.words()


def test_one_document_of_tomorrow_moves_no_other(stepped: Ports) -> None:
    clock = stepped.clock
    assert isinstance(clock, SetClock)
    emit(stepped, "today")
    clock.set_by = timedelta(days=1)
    (ahead,) = emit(stepped, "tomorrow")
    clock.set_by = timedelta()
    clock.sleep(10)
    emit(stepped, "after", account_id="other")
    emit(stepped, "after")

    for account_id in (ACCOUNT, "other"):
        assert seal_ledger(going_on(stepped), account_id)
        assert not faults(stepped, account_id)

    other = StoredLog.of(stepped, "other").newest()
    acme = StoredLog.of(stepped, ACCOUNT).newest()
    assert other
    assert acme
    assert instant(acme.recorded_until) <= clock.now()
    assert ahead
    found = audit(stepped)
    assert found.clock_off >= 1
    assert found.clock_off_s == pytest.approx(86_400, abs=60)


def test_a_clock_that_was_set_back_before_its_receipts_keeps_a_key_from_being_rotated(
    ports: Ports, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cli.commands import keys

    clock = SetClock()
    ahead = dataclasses.replace(ports, clock=clock)
    clock.real = datetime.now(UTC) + timedelta(hours=1)
    emit(ahead, "ahead", account_id="_system")
    run = Path(str(ports.documents._path))  # type: ignore[attr-defined]
    run_sql(
        run,
        "UPDATE documents SET created_us = created_us + 3600000000 WHERE path LIKE '%/receipts/%'",
    )
    assert seal_ledger(ahead, "_system")
    monkeypatch.setattr(keys, "open_ports", lambda _settings: ports)

    with pytest.raises(ConflictError, match="ahead of this machine's clock"):
        keys.rotate(None)


def test_a_clock_that_differs_is_noticed_alarmed_and_named(stepped: Ports) -> None:
    clock = stepped.clock
    assert isinstance(clock, SetClock)
    clock.real = datetime.now(UTC)
    troubles.compare_clocks(going_on(stepped))
    assert not stepped.memory.troubles()
    clock.set_by = timedelta(hours=1)

    for _ in range(3):
        troubles.compare_clocks(going_on(stepped))

    (found,) = stepped.memory.troubles()
    assert found.name.startswith("clock-off/")
    assert "+3600 s" in found.detail
    alerts = [
        d
        for d in stepped.documents.scan(Query("tenants/_system/receipts"))
        if isinstance(d, Document) and d.data["operation"] == "alert_raised"
    ]
    assert len(alerts) == 1
    clock.set_by = timedelta()
    troubles.compare_clocks(going_on(stepped))
    assert not stepped.memory.troubles()


# -- Valkey's own clock


@pytest.fixture
def set_memory(tmp_path: Path) -> Iterator[tuple[ValkeyMemory, WallClock]]:
    """Memory on a Valkey whose clock can be set."""
    clock = wall_clock(tmp_path / "clock")
    if clock is None:
        pytest.skip("no C compiler for the shim")
    (port,) = free_ports(1)
    server = subprocess.Popen(
        [
            valkey_binary(),
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(tmp_path),
        ],
        env=dict(clock.environment),
        stdout=subprocess.DEVNULL,
    )
    memory = ValkeyMemory(f"redis://127.0.0.1:{port}/1")

    def answers() -> bool:
        try:
            return memory.time() is not None
        except Exception:
            return False

    until(answers)
    yield memory, clock
    memory.close()
    server.kill()
    server.wait()


def test_a_lease_lasts_no_longer_whatever_the_clock_is_set_to(
    set_memory: tuple[ValkeyMemory, WallClock],
) -> None:
    memory, clock = set_memory
    lease(memory, 1)
    clock.set_by(3600)
    until(lambda: abs((memory.time() - datetime.now(UTC)).total_seconds()) > 3000)
    assert memory.extend_lease(1)
    clock.set_by(0)
    until(lambda: abs((memory.time() - datetime.now(UTC)).total_seconds()) < 60)
    assert memory.standing("acme") is Verdict.ADMITTED
    began = time.monotonic()

    until(lambda: memory.standing("acme") is Verdict.NO_LEASE)

    assert time.monotonic() - began < 1.5
    assert memory.lease_left_s() == 0


def test_another_machine_trusts_a_lease_only_as_long_as_it_has_seen_it(
    set_memory: tuple[ValkeyMemory, WallClock],
) -> None:
    memory, clock = set_memory
    elsewhere = ValkeyMemory(memory._url)
    elsewhere._boot = "another"
    clock.set_by(3600)
    lease(memory, 1)
    assert elsewhere.standing("acme") is Verdict.ADMITTED
    clock.set_by(0)

    until(lambda: elsewhere.standing("acme") is Verdict.NO_LEASE, 5)
    assert memory.extend_lease(1)
    assert elsewhere.standing("acme") is Verdict.ADMITTED
    elsewhere.close()


def test_ticks_and_signs_of_life_of_a_clock_that_was_set_back_hold_nobody_up(
    set_memory: tuple[ValkeyMemory, WallClock],
) -> None:
    memory, clock = set_memory
    clock.set_by(3600)
    until(lambda: abs((memory.time() - datetime.now(UTC)).total_seconds()) > 3000)
    assert memory.claim_tick("reap", 0.8)
    memory.beat_alive("beat", 0.5)
    memory.mark_unsealed("acme")
    assert memory.take_unsealed(8, 10)
    clock.set_by(0)
    until(lambda: abs((memory.time() - datetime.now(UTC)).total_seconds()) < 60)

    assert memory.claim_tick("reap", 0.8)
    assert not memory.claim_tick("reap", 0.8)
    until(lambda: not memory.alive(["beat"])["beat"])
    assert [account for account, _ in memory.take_unsealed(8, 10)] == ["acme"]


@pytest.mark.parametrize("by_s", [3600, -3600])
def test_how_long_ago_a_sign_of_life_was_is_no_matter_of_clocks(
    set_memory: tuple[ValkeyMemory, WallClock], by_s: int
) -> None:
    memory, clock = set_memory
    lease(memory, 60)
    memory.beat_alive("beat", 60)
    clock.set_by(by_s)
    until(lambda: abs((memory.time() - datetime.now(UTC)).total_seconds()) > 3000)

    for component in ("lease", "beat"):
        seen = memory.seen([component])[component]
        assert seen
        assert seen.ago_s < 30
    time.sleep(0.05)
    memory.beat_alive("beat", 60)
    going_on = memory.seen(["beat"])["beat"]
    assert going_on
    assert 0.05 <= going_on.streak_s < 30


@pytest.mark.parametrize("by_s", [3600, -3600])
def test_what_is_put_into_a_list_waits_from_then_on_whatever_memorys_clock_says(
    set_memory: tuple[ValkeyMemory, WallClock], by_s: int
) -> None:
    memory, clock = set_memory
    lease(memory, 60)
    clock.set_by(by_s)
    until(lambda: abs((memory.time() - datetime.now(UTC)).total_seconds()) > 3000)

    now_us = time.time_ns() // 1000
    for number, ago_us in enumerate((5_000_000, 9_000_000)):
        slot = Slot("acme", "crm", f"a-{number}")
        memory.enqueue([Waiting(slot, "crm.resize", 3600, now_us - ago_us, now_us)])

    _, (queue,) = memory.queues(1)
    assert 8 < queue.oldest_s < 30
