"""Celery without Celery: queues, children that take messages, hard limits, chains.

The tasks are the real ones. Messages may be lost, doubled, late; a child that dies is replaced, and
its message may come again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import Retry
from greenlet import getcurrent

from governor.errors import GovernorError, OutageError
from governor.runs import Run
from tasks.actions import dispatch
from tasks.celery import ACTIONS, HEALTH, LEDGER, RUNBOOKS, app
from tasks.outcomes import Ending, NotDone
from tasks.runbooks import RUNBOOKS as KNOWN
from tasks.runs.step import run_link
from tests.simulation.world import HOSTS, Process, World

CHILDREN = {ACTIONS: 3, RUNBOOKS: 2, HEALTH: 2, LEDGER: 1}
OF_THE_SECOND = {ACTIONS: 2, RUNBOOKS: 1, HEALTH: 1}
"""Children of the second host, where there is one."""

_STARTS_S = 0.3


@dataclass(slots=True)
class Message:
    """One message; ``links`` are those that follow it in its chain."""

    task: str
    kwargs: dict[str, Any]
    limit_s: float | None = None
    links: Sequence[tuple[str, float]] = ()


@dataclass(slots=True)
class Broker:
    """Queues, and who waits at them."""

    world: World
    ports_of: Callable[[Process], Any]
    waiting: dict[str, list[Message]] = field(default_factory=dict)
    idle: dict[str, list[tuple[Any, Process]]] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    """Host -> when it is there again."""

    # -- sending: what stands in the place of ``tasks.publish`` and of the app

    def send_task(
        self,
        task: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        queue: str = LEDGER,
        time_limit: float | None = None,
        **_options: Any,
    ) -> None:
        """As the app's own."""
        told = dict(kwargs or {})
        if args:
            names = app.tasks[task].run.__code__.co_varnames
            told |= dict(zip([n for n in names if n != "self"], args, strict=False))
        self.send(queue, Message(task, told, time_limit))

    def chain(self, run: Run, links: Sequence[tuple[str, float]]) -> None:
        """As ``publish.chain``."""
        kwargs = {"account_id": run.account_id, "run_id": run.run_id}
        (first, limit_s), *others = links
        self.send(RUNBOOKS, Message(first, kwargs, limit_s, others))

    def send(self, queue: str, message: Message) -> None:
        """Put a message into its queue, unless it is lost."""
        world, copies = self.world, 0 if self._sender_is_cut() else 1
        if not world.is_frozen and copies:
            if world.rng.random() < world.rates.message_lost:
                world.tell(f"lost {message.task}")
                copies = 0
            elif world.rng.random() < world.rates.message_doubled:
                copies = 2
        for _ in range(copies):
            self.waiting.setdefault(queue, []).append(message)
            self._wake(queue)

    def _sender_is_cut(self) -> bool:
        return bool(self.world.cut) and self.world.is_cut(self.world.current())

    def _wake(self, queue: str) -> None:
        idle = self.idle.setdefault(queue, [])
        while idle:
            body, process = idle.pop(0)
            if process.is_alive:
                self.world.wake(body, process, 0.001)
                return

    # -- working

    def start(self, *, has_second: bool) -> None:
        """Start every child."""
        for host, children in zip(HOSTS, (CHILDREN, OF_THE_SECOND), strict=True):
            for queue, count in children.items() if has_second or host == HOSTS[0] else ():
                for _ in range(count):
                    self.hire(queue, 0.0, host)

    def hire(self, queue: str, after_s: float, host: str) -> None:
        """A child of this queue, replaced when it dies, once its host is there again."""
        process = self.world.spawn(queue, lambda: self._work(queue), after_s, host)

        def replace() -> None:
            back_s = self.gone.get(host, 0.0) - self.world.now_s
            self.hire(queue, max(_STARTS_S, back_s), host)

        process.on_death = replace

    def lose_host(self, host: str, for_s: float) -> None:
        """Kill a whole host; it starts again later."""
        self.gone[host] = self.world.now_s + for_s
        for process in list(self.world.processes.values()):
            if process.host == host:
                self.world.kill(process, "its host is gone")

    def _work(self, queue: str) -> None:
        process = self.world.current()
        while True:
            messages = self.waiting.setdefault(queue, [])
            if self.world.is_cut(process):
                process.task = ""
                self._wake(queue)  # another takes what this one was called for
                self.world.sleep(self.world.cut[process.host] - self.world.now_s)
                continue
            if not messages:
                self.idle.setdefault(queue, []).append((getcurrent(), process))
                process.task = ""
                self.world.park()
                continue
            message = messages.pop(0)
            self._guard(process, queue, message)
            process.task = message.task
            self._carry_out(process, message)
            process.message = None

    def _guard(self, process: Process, queue: str, message: Message) -> None:
        """Kill a child that is at a message for longer than its hard limit."""
        process.message = message
        limit_s = message.limit_s or 60.0

        def strike() -> None:
            if process.is_alive and process.message is message:
                self.world.kill(process, "hard limit")

        self.world.at(self.world.now_s + limit_s, strike)

    def _carry_out(self, process: Process, message: Message) -> None:
        ports, run_id = self.ports_of(process), message.kwargs.get("run_id")
        try:
            if run_id is not None and message.task not in app.tasks:
                raise AssertionError(f"no task {message.task}")
            if message.task == "dispatch.bell":
                dispatch.serve(
                    ports, begun=lambda *_: None, ended=lambda *_: None, **message.kwargs
                )
            elif run_id is not None and "." in message.task:
                told = run_link(ports, KNOWN, message.task, run_id)
                if told.is_done and told.ending is not Ending.RUN_ENDED and message.links:
                    (following, limit_s), *others = message.links
                    self.send(RUNBOOKS, Message(following, message.kwargs, limit_s, others))
            else:
                app.tasks[message.task].run(**message.kwargs)
        except (Retry, NotDone, OutageError) as error:
            self.world.tell(f"{message.task}: {type(error).__name__}: {error}"[:160])
        except GovernorError as error:
            self.world.tell(f"{message.task} raised {type(error).__name__}: {error}"[:200])
