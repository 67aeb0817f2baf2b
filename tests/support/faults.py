"""Real ports whose nth write is lost, or lands and is reported as failed, or kills its process."""

import dataclasses
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from governor.errors import OutageError
from ports import Ports
from ports.documents import Documents, Landed, Write
from ports.objects import Objects

T = TypeVar("T")
Fault = Literal["lost", "landed"]


class FaultyDocuments:
    """Documents on a real adapter; commits number ``failing`` (from 1) fail as told."""

    def __init__(self, inner: Documents, fault: Fault, failing: set[int]) -> None:
        self._inner = inner
        self._fault = fault
        self._failing = failing
        self.commits = 0

    def commit(self, writes: Sequence[Write]) -> list[str]:
        return self._meet(lambda: self._inner.commit(writes))

    def commit_each(self, commits: Sequence[Sequence[Write]]) -> list[Landed]:
        return self._meet(lambda: self._inner.commit_each(commits))

    def _meet(self, carry_out: Callable[[], T]) -> T:
        self.commits += 1
        if self.commits not in self._failing:
            return carry_out()
        if self._fault == "landed":
            carry_out()
        raise OutageError("injected", f"the write was {self._fault}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Writes:
    """Counts the writes of both stores together, and has something happen at one of them."""

    def __init__(self, at: int, fault: Fault, happen: Callable[[], None]) -> None:
        self.count = 0
        self._at, self._fault, self._happen = at, fault, happen

    def write(self, carry_out: Callable[[], Any]) -> Any:
        self.count += 1
        if self.count != self._at:
            return carry_out()
        if self._fault == "lost":
            self._happen()
            return carry_out()
        result = carry_out()
        self._happen()
        return result


class WatchedDocuments:
    """Documents on a real adapter whose writes ``Writes`` watches."""

    def __init__(self, inner: Documents, writes: Writes) -> None:
        self._inner, self._writes = inner, writes

    def commit(self, writes: Sequence[Write]) -> list[str]:
        return list(self._writes.write(lambda: self._inner.commit(writes)))

    def commit_each(self, commits: Sequence[Sequence[Write]]) -> list[Landed]:
        return list(self._writes.write(lambda: self._inner.commit_each(commits)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class WatchedObjects:
    """Objects on a real adapter whose writes ``Writes`` watches."""

    def __init__(self, inner: Objects, writes: Writes) -> None:
        self._inner, self._writes = inner, writes

    def create(self, name: str, content: bytes) -> bool:
        return bool(self._writes.write(lambda: self._inner.create(name, content)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def die() -> None:
    """What ``kill -9`` does."""
    os.kill(os.getpid(), signal.SIGKILL)


def outage() -> None:
    """The store does not answer."""
    raise OutageError("injected", "the store did not answer")


class Watched:
    """Any port on a real adapter; ``Writes`` watches the methods named."""

    def __init__(self, inner: object, writes: Writes, *names: str) -> None:
        self._inner, self._writes, self._names = inner, writes, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name not in self._names:
            return found
        return lambda *args, **kwargs: self._writes.write(lambda: found(*args, **kwargs))


def watched(ports: Ports, writes: Writes) -> Ports:
    """Ports of which every write of a run is watched."""
    return dataclasses.replace(
        ports,
        documents=Watched(ports.documents, writes, "commit"),
        signals=Watched(ports.signals, writes, "create", "delete"),
        memory=Watched(ports.memory, writes, "boot", "forget", "announce"),
        secrets=Watched(ports.secrets, writes, "publish_tenant_key", "withdraw_tenant_key"),
    )  # type: ignore[arg-type]
