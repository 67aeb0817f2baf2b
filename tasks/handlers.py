"""Handlers of actions: what a policy's ``handler`` names, and how it is undone (D17).

::

    from pydantic import BaseModel
    from tasks.handlers import ActionContext, action

    class Resize(BaseModel):
        seats: int

    @action("crm.resize", payload=Resize)
    def resize(context: ActionContext, payload: Resize) -> None:
        crm.set_seats(context.account_id, payload.seats, timeout=context.remaining_s())

    @resize.rollback
    def restore(context: ActionContext, payload: Resize) -> None:
        crm.restore_seats(context.account_id, key=context.action_id)

A module of handlers is found by the entry point group ``ggen.actions``. A rollback may be asked
for more than once and when the handler did only part of its work: it must be idempotent.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from governor.errors import InputError, UnrecoverableError

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ActionContext:
    """Which action this is, and how long it still has."""

    account_id: str
    sku_id: str
    action_id: str
    signal_id: str
    deadline_s: float = field(repr=False)

    def remaining_s(self) -> float:
        """Seconds left, for the ``timeout`` of every outside call; at least a millisecond."""
        return max(0.001, self.deadline_s - time.monotonic())


Call = Callable[[ActionContext, P], object]


@dataclass(slots=True)
class Handler(Generic[P]):
    """One registered action."""

    name: str
    payload: type[P]
    execute: Call[P]
    undo: Call[P] | None = None

    def rollback(self, undo: Call[P]) -> Call[P]:
        """Declare (as a decorator) how the action is undone."""
        self.undo = undo
        return undo

    def parse(self, payload: str) -> P:
        """The payload as the handler gets it, before its time begins to run.

        Raises:
            UnrecoverableError: the model refuses it; says which fields.
        """
        try:
            return self.payload.model_validate_json(payload)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, f['loc'])) or 'payload'}: {f['msg']}"
                for f in error.errors(include_url=False, include_input=False)[:5]
            )
            raise UnrecoverableError("payload-invalid", faults) from None
        except Exception as error:  # a validator of the model's own that fails in its own way
            raise UnrecoverableError("payload-invalid", f"its model: {error!r}"[:500]) from error


_REGISTERED: dict[str, Handler[Any]] = {}


def action(name: str, *, payload: type[P]) -> Callable[[Call[P]], Handler[P]]:
    """Register a handler under ``name``.

    Raises:
        InputError: the name is taken by another handler.
    """

    def register(execute: Call[P]) -> Handler[P]:
        if name in _REGISTERED:
            raise InputError("handler-taken", f"two handlers are registered as {name!r}")
        handler = Handler(name, payload, execute)
        _REGISTERED[name] = handler
        return handler

    return register


@cache
def registered() -> Mapping[str, Handler[Any]]:
    """Every handler by name, from the entry points of ``ggen.actions``.

    Raises:
        InputError: a module named by an entry point cannot be imported.
    """
    for point in entry_points(group="ggen.actions"):
        try:
            point.load()
        except ImportError as error:
            raise InputError(
                "handlers-unloadable",
                f"entry point {point.name!r} of ggen.actions ({point.value}): {error}",
            ) from error
    return _REGISTERED
