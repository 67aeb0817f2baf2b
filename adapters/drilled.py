"""Documents that fail on purpose while a drill goes on (``ggen drill``), and are untouched else."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from math import inf
from typing import TypeVar

from governor.errors import OutageError
from governor.health import Drill, Fault
from ports.documents import Document, Documents, Landed, Query, Where, Write

T = TypeVar("T")
_AFTER_FAILURE_S = 10.0
"""How long Memory is not asked again for a drill after it did not answer, unless it is back."""

_ALONE = (Fault.REFUSE, Fault.HANG, Fault.SLOW, Fault.GARBAGE, Fault.DEAF, Fault.QUOTA)


class Switch:
    """The drill that goes on, asked for now and then: a call of Documents costs no call more."""

    def __init__(
        self,
        ask: Callable[[], Drill | None],
        every_s: float,
        answered_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._ask, self._every_s, self._answered_s = ask, every_s, answered_s
        self._known: Drill | None = None
        self._look_at, self._failed_s = 0.0, inf

    def drill(self) -> Drill | None:
        """As it was known a moment ago; none while Memory is away, for then all is refused."""
        now = time.monotonic()
        if now >= self._look_at or self._answered_s() > self._failed_s:
            self._look_at = now + _AFTER_FAILURE_S  # others need not wait for this answer
            try:
                self._known = self._ask()
                self._look_at, self._failed_s = now + self._every_s, inf
            except OutageError:
                self._known, self._failed_s = None, time.monotonic()
        return self._known


class DrilledDocuments:
    """See ``ports.documents.Documents`` for what it promises, and ``Fault`` for what it does."""

    def __init__(self, inner: Documents, switch: Switch, timeout_s: float) -> None:
        self._inner, self._switch, self._timeout_s = inner, switch, timeout_s

    def get(self, path: str) -> Document | None:
        fault = self._fault(path)
        if fault is Fault.GARBAGE:
            found = self._inner.get(path)
            return replace(found, data={"": "not what was stored"}) if found else None
        return self._read(fault, lambda: self._inner.get(path))

    def commit(self, writes: Sequence[Write]) -> list[str]:
        return self._write(writes, lambda: self._inner.commit(writes))

    def commit_each(self, commits: Sequence[Sequence[Write]]) -> list[Landed]:
        writes = [write for each in commits for write in each]
        return self._write(writes, lambda: self._inner.commit_each(commits))

    def scan(self, query: Query) -> list[Document]:
        return self._read(self._fault(query.collection), lambda: self._inner.scan(query))

    def count(self, collection: str, where: Sequence[Where]) -> int:
        return self._read(self._fault(collection), lambda: self._inner.count(collection, where))

    def created(
        self, collection: str, *, after: tuple[datetime, str] | None = None, limit: int = 100
    ) -> list[Document]:
        fault = self._fault(collection)
        return self._read(fault, lambda: self._inner.created(collection, after=after, limit=limit))

    @property
    def late_s(self) -> float:
        return self._inner.late_s

    def close(self) -> None:
        self._inner.close()

    def _read(self, fault: Fault | None, read: Callable[[], T]) -> T:
        if fault is Fault.DEAF:
            raise _failure(fault, "UNAVAILABLE")
        self._suffer(fault)
        return read()

    def _write(self, writes: Sequence[Write], carry_out: Callable[[], T]) -> T:
        fault = next((f for write in writes if (f := self._fault(write.path))), None)
        if fault in (Fault.HANG, Fault.GARBAGE) and random.random() < 0.5:  # noqa: S311  # no secret
            carry_out()  # it lands, but the caller gets an error
        if fault is Fault.DEAF:
            landed = carry_out()
            if self._is_random():  # else a check of mixed faults could pass
                raise _failure(fault, "UNAVAILABLE")
            return landed
        if fault is Fault.SLOW and self._is_random():
            raise _failure(fault, "DEADLINE_EXCEEDED")
        self._suffer(fault)
        return carry_out()

    def _fault(self, path: str) -> Fault | None:
        """What befalls a call about this path."""
        drill = self._switch.drill()
        if drill is None:
            return None
        segments = [*path.split("/"), ""]
        if drill.accounts and (segments[0] != "tenants" or segments[1] not in drill.accounts):
            return None
        return random.choice(_ALONE) if drill.fault is Fault.RANDOM else drill.fault  # noqa: S311

    def _is_random(self) -> bool:
        drill = self._switch.drill()
        return drill is not None and drill.fault is Fault.RANDOM

    def _suffer(self, fault: Fault | None) -> None:
        match fault:
            case Fault.SLOW:
                time.sleep(0.6 * self._timeout_s)
            case Fault.HANG:
                time.sleep(self._timeout_s)
                raise _failure(fault, "DEADLINE_EXCEEDED")
            case Fault.QUOTA:
                raise _failure(fault, "RESOURCE_EXHAUSTED")
            case Fault.GARBAGE:
                raise _failure(fault, "DATA_LOSS")
            case Fault.REFUSE:
                raise _failure(fault, "UNAVAILABLE")


def _failure(fault: Fault, status: str) -> OutageError:
    return OutageError("documents-unavailable", f"Documents {fault}, for a drill", 2, status)
