"""One seeded clock and scheduler; processes that die and stand still."""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from greenlet import getcurrent, greenlet

from governor.errors import ActionDeadline
from governor.records import ProcessClaim
from governor.times import timestamp

BEGAN = datetime(2026, 11, 27, 12, tzinfo=UTC)
HOSTS = ("sim-1", "sim-2")

CURSED = (
    "",
    "commit",
    "get",
    "boot",
    "owe",
    "extend_lease",
    "release",
    "take",
    "admit",
    "create",
    "roll_back",
    "begin_undo",
)
"""Calls, of which one at most is cursed in a world."""


class Killed(BaseException):
    """``kill -9``: nothing catches it, and no call of its process does anything any more."""


@dataclass(frozen=True, slots=True)
class Rates:
    """How likely each fault is, drawn from the seed: some worlds are calm, others are not."""

    lost: float
    landed: float
    message_lost: float
    message_doubled: float
    death: float
    stall: float
    outage_at_commit: float
    cursed: str
    """A call that suffers most: one in six of its calls meets a fault."""
    kills: int
    outages: int
    wipes: int

    @classmethod
    def drawn(cls, rng: random.Random) -> "Rates":
        """Each fault is absent in half the worlds, and rare or frequent in the others."""

        def rate(most: float) -> float:
            return 0.0 if rng.random() < 0.5 else most * rng.random()

        return cls(
            lost=rate(0.06),
            landed=rate(0.06),
            message_lost=rate(0.3),
            message_doubled=rate(0.3),
            death=rate(0.02),
            stall=rate(0.02),
            outage_at_commit=rate(0.02),
            cursed=rng.choice(CURSED),
            kills=rng.choice((0, 1, 2, 6)),
            outages=rng.choice((0, 1, 1, 2, 3)),
            wipes=rng.choice((0, 0, 1)),
        )


@dataclass(slots=True, eq=False)
class Process:
    """One process of the world; ``until_s`` is when a deadline of its handler fires."""

    pid: int
    role: str
    began_s: float
    host: str = HOSTS[0]
    is_alive: bool = True
    until_s: float | None = None
    ports: Any = None
    task: str = ""
    message: Any = None
    on_death: Callable[[], None] = lambda: None


@dataclass(slots=True)
class World:
    """Time, and whose turn it is. ``now_s`` counts from the world's beginning."""

    seed: int
    rng: random.Random = field(init=False)
    rates: Rates = field(init=False)
    now_s: float = 0.0
    steps: int = 0
    is_frozen: bool = False
    """Whether faults have ended."""
    log: list[str] = field(default_factory=list)
    processes: dict[int, Process] = field(default_factory=dict)
    hurts: tuple[str, ...] = ("documents", "objects", "memory")
    """The stores whose calls meet faults."""
    hurt: Process | None = None
    """Who met an outage last: when it dies, too, it is worth most."""
    down: dict[str, float] = field(default_factory=dict)
    """Store -> until when it does not answer."""
    cut: dict[str, float] = field(default_factory=dict)
    """Host -> until when nothing answers it, and nothing of it arrives."""
    _heap: list[tuple[float, int, greenlet, Process]] = field(default_factory=list)
    _order: Any = field(default_factory=itertools.count)
    _pids: Any = field(default_factory=lambda: itertools.count(100))
    _hub: Any = None
    _running: dict[greenlet, Process] = field(default_factory=dict)
    _parked: set[greenlet] = field(default_factory=set)
    _is_over: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.rates = Rates.drawn(self.rng)
        self._hub = getcurrent()

    # -- time

    def now(self) -> datetime:
        """The wall clock."""
        return BEGAN + timedelta(seconds=round(self.now_s, 6))

    def sleep(self, seconds: float) -> None:
        """Let this process rest; its deadline fires in time."""
        process = self.current()
        if process.until_s is not None and self.now_s + seconds >= process.until_s:
            seconds = max(0.0, process.until_s - self.now_s)
            self._rest(seconds)
            process.until_s = None
            raise ActionDeadline
        self._rest(seconds)

    def _rest(self, seconds: float) -> None:
        process = self.current()
        self._push(self.now_s + seconds, getcurrent(), process)
        self._hub.switch()
        if not process.is_alive:
            raise Killed

    # -- processes

    def current(self) -> Process:
        """Whose code runs now."""
        return self._running[getcurrent()]

    def spawn(
        self, role: str, work: Callable[[], None], after_s: float = 0.0, host: str = HOSTS[0]
    ) -> Process:
        """A new process that does this, and then ends."""
        process = Process(next(self._pids), role, self.now_s + after_s, host)
        self.processes[process.pid] = process

        def run() -> None:
            try:
                work()
            except Killed:
                pass
            finally:
                self._running.pop(getcurrent(), None)
                self.kill(process, "")

        body = greenlet(run, parent=self._hub)
        self._running[body] = process
        self._push(process.began_s, body, process)
        return process

    def kill(self, process: Process, why: str) -> None:
        """``kill -9``."""
        if process.is_alive:
            if why:
                self.tell(f"kill {process.role} {process.pid} ({why}) at {process.task}")
            process.is_alive = False
            if not self._is_over:
                process.on_death()

    def claim(self, at: datetime) -> ProcessClaim:
        """A claim in the running process's name."""
        process = self.current()
        return ProcessClaim(
            host=process.host,
            boot_id=f"boot-{process.host}",
            pid=process.pid,
            process_started=process.began_s,
            claimed_at=timestamp(at),
        )

    def host(self) -> str:
        """Where the code that runs now runs; the first host outside all processes."""
        process = self._running.get(getcurrent())
        return process.host if process else HOSTS[0]

    def is_cut(self, process: Process) -> bool:
        """Whether a process's host is cut off from everything."""
        return self.cut.get(process.host, 0.0) > self.now_s

    # -- scheduling

    def park(self) -> None:
        """Wait until another wakes this process."""
        body, process = getcurrent(), self.current()
        self._parked.add(body)
        self._hub.switch()
        self._parked.discard(body)
        if not process.is_alive:
            raise Killed

    def wake(self, body: greenlet, process: Process, after_s: float) -> None:
        """Have a parked process go on."""
        self._push(self.now_s + after_s, body, process)

    def _push(self, at_s: float, body: greenlet, process: Process) -> None:
        heapq.heappush(self._heap, (at_s, next(self._order), body, process))

    def step(self) -> bool:
        """Let the next one go on; False when none is left."""
        if not self._heap:
            return False
        at_s, _, body, _process = heapq.heappop(self._heap)
        self.now_s = max(self.now_s, at_s)
        self.steps += 1
        if not body.dead:
            body.switch()
        return True

    def at(self, seconds: float, do: Callable[[], None]) -> None:
        """Have something happen then, outside all processes."""
        body = greenlet(do, parent=self._hub)
        self._push(seconds, body, Process(0, "fate", 0.0))

    def tell(self, line: str) -> None:
        """Note what happened, for who reads a failing seed."""
        self.log.append(f"{self.now_s:9.3f}  {line}")

    def end(self) -> None:
        """Kill all, so that no greenlet is left behind."""
        self._is_over = True
        for process in self.processes.values():
            process.is_alive = False
        left = [body for _, _, body, _ in self._heap] + list(self._parked)
        for body in left:
            if body in self._running:
                body.switch()
        self._heap.clear()


class SimClock:
    """``ports.system.Clock`` on the world's time."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        """Now."""
        return self._world.now()

    def machine(self) -> datetime:
        """Now."""
        return self._world.now()

    def monotonic_s(self) -> float:
        """Seconds since the world began."""
        return self._world.now_s + 1_000

    def sleep(self, seconds: float) -> None:
        """Rest."""
        self._world.sleep(seconds)


class SimProcesses:
    """``ports.system.Processes``: each host sees its own."""

    def __init__(self, world: World) -> None:
        self._world = world

    def claim(self, at: datetime) -> ProcessClaim:
        """In this process's name."""
        return self._world.claim(at)

    def kill(self, claim: ProcessClaim) -> None:
        """End it."""
        process = self._world.processes.get(claim.pid)
        if self.sees(claim) and process is not None and process is not self._world.current():
            self._world.kill(process, "taken over")

    def is_gone(self, claim: ProcessClaim) -> bool:
        """Whether it has died; of another host's nobody knows."""
        process = self._world.processes.get(claim.pid)
        return self.sees(claim) and (process is None or not process.is_alive)

    def sees(self, claim: ProcessClaim) -> bool:
        """All of this host."""
        return claim.host == self._world.current().host

    def age_s(self) -> float:
        """Since it began."""
        return self._world.now_s - self._world.current().began_s
