"""A real port whose nth write is lost, or lands and is reported as failed."""

from collections.abc import Sequence
from typing import Any, Literal

from governor.errors import OutageError
from ports.documents import Documents, Write

Fault = Literal["lost", "landed"]


class FaultyDocuments:
    """Documents on a real adapter; commits number ``failing`` (from 1) fail as told."""

    def __init__(self, inner: Documents, fault: Fault, failing: set[int]) -> None:
        self._inner = inner
        self._fault = fault
        self._failing = failing
        self.commits = 0

    def commit(self, writes: Sequence[Write]) -> None:
        self.commits += 1
        if self.commits not in self._failing:
            self._inner.commit(writes)
            return
        if self._fault == "landed":
            self._inner.commit(writes)
        raise OutageError("injected", f"the write was {self._fault}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
