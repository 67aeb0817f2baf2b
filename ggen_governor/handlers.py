"""Handlers of actions: what a policy's ``handler`` names, and how it is undone (D17).

::

    from pydantic import BaseModel
    from ggen_governor import ActionContext, action

    class Resize(BaseModel):
        seats: int

    @action("crm.resize", payload=Resize)
    def resize(context: ActionContext, payload: Resize) -> None:
        crm.set_seats(context.account_id, payload.seats, timeout=context.remaining_s())

    @resize.rollback
    def restore(context: ActionContext, payload: Resize) -> None:
        crm.restore_seats(context.account_id, key=context.action_id)

The entry point group ``ggen.actions`` names the modules of handlers. A handler and its rollback are
plain functions. A handler that has nothing to undo says so: ``@action(…, undo=None)``. A rollback
may be asked for more than once and when the handler did only part of its work: it must be
idempotent.
"""

import inspect
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError

from governor.actions import MAX_RESULT_BYTES
from governor.errors import ActionError, InputError
from ledger import canonical

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ActionContext:
    """Which action this is, and how long it still has.

    A rollback finds in ``result`` what the handler returned, and in ``learned`` what it noted with
    ``learn`` before it failed. Neither survives a handler that was killed: undo by ``action_id``.
    """

    account_id: str
    sku_id: str
    action_id: str
    signal_id: str
    deadline_s: float = field(repr=False)
    result: JsonValue = None
    learned: dict[str, JsonValue] = field(default_factory=dict)
    entitlement_id: str = ""

    def remaining_s(self) -> float:
        """Seconds left, for the ``timeout`` of every outside call; at least a millisecond."""
        return max(0.001, self.deadline_s - time.monotonic())

    def learn(self, **facts: JsonValue) -> None:
        """Note what the rollback must know, as soon as it is known; 4 KiB of JSON in all.

        Raises:
            ActionError: ``LEARNED_INVALID``: no JSON, or too much; what was noted before stays.
        """
        text = _kept("LEARNED_INVALID", {**self.learned, **facts})
        self.learned.update(json.loads(text))  # a copy: what it is changed into later is not kept


Call = Callable[[ActionContext, P], object]


@dataclass(slots=True)
class Handler(Generic[P]):
    """One registered action."""

    name: str
    payload: type[P]
    execute: Call[P]
    undo: Call[P] | None = None
    declares_undo: bool = False

    def rollback(self, undo: Call[P]) -> Call[P]:
        """Declare (as a decorator) how the action is undone.

        Raises:
            InputError: it is no plain function.
        """
        _refuse_unless_plain(undo, f"the rollback of {self.name!r}")
        self.undo, self.declares_undo = undo, True
        return undo

    def run(self, context: ActionContext, payload: P) -> str | None:
        """Run the handler to its end; what it returned, as canonical JSON.

        Raises:
            ActionError: ``DID_NOT_RUN``: it gave back work to be done by another; or
                ``RESULT_INVALID``: what it returned is no JSON, or more than 4 KiB.
            whatever the handler raises.
        """
        value = _ran(self.execute(context, payload))
        return None if value is None else _kept("RESULT_INVALID", value)

    def roll_back(self, context: ActionContext, payload: P) -> None:
        """Run the rollback to its end.

        Raises:
            ActionError: ``NO_ROLLBACK``: there is none; ``DID_NOT_RUN``: as for ``run``.
            whatever the rollback raises.
        """
        if self.undo is None:
            raise ActionError("NO_ROLLBACK", f"handler {self.name!r} has no rollback any more")
        _ran(self.undo(context, payload))

    def parse(self, payload: str) -> P:
        """The payload as the handler gets it, before its time begins to run.

        Raises:
            InputError: ``payload-invalid``: the model refuses it; says which fields.
            Exception: the model failed in its own way, which is its author's fault.
        """
        try:
            return self.payload.model_validate_json(payload)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, f['loc'])) or 'payload'}: {f['msg']}"
                for f in error.errors(
                    include_url=False, include_input=False, include_context=False
                )[:5]
            )
            raise InputError("payload-invalid", faults) from None


_REGISTERED: dict[str, Handler[Any]] = {}


def action(
    name: str, *, payload: type[P], undo: Literal["declared"] | None = "declared"
) -> Callable[[Call[P]], Handler[P]]:
    """Register a handler under ``name``.

    Args:
        name: what a policy calls it.
        payload: the model of a signal's payload. The ingress refuses what it refuses.
        undo: None declares that there is nothing to undo; else a ``rollback`` must follow.

    Raises:
        InputError: the name is taken, or the handler is no plain function.
    """

    def register(execute: Call[P]) -> Handler[P]:
        taken = _REGISTERED.get(name)
        if taken is not None and _where(taken.execute) != _where(execute):
            raise InputError("handler-taken", f"two handlers are registered as {name!r}")
        _refuse_unless_plain(execute, f"handler {name!r}")
        handler = Handler(name, payload, execute, declares_undo=undo is None)
        _REGISTERED[name] = handler
        return handler

    return register


@cache
def registered() -> Mapping[str, Handler[Any]]:
    """Every handler by name, from the entry points of ``ggen.actions``.

    Raises:
        InputError: a module named by an entry point cannot be imported, or a handler in it says
            nothing of how it is undone.
    """
    for point in entry_points(group="ggen.actions"):
        try:
            point.load()
        except ImportError as error:
            raise InputError(
                "handlers-unloadable",
                f"entry point {point.name!r} of ggen.actions ({point.value}): {error}",
            ) from error
    for handler in _REGISTERED.values():
        if not handler.declares_undo:
            raise InputError(
                "handler-without-undo",
                f"handler {handler.name!r} ({_place(handler.execute)}) says nothing of how it is "
                f"undone. Add a function with @{getattr(handler.execute, '__name__', 'it')}"
                f".rollback, or declare that there is nothing to undo: "
                f'@action("{handler.name}", payload={handler.payload.__name__}, undo=None)',
            )
    return _REGISTERED


def _refuse_unless_plain(call: Callable[..., object], what: str) -> None:
    kind = ""
    if inspect.isclass(call):
        kind = "a class"
    elif inspect.iscoroutinefunction(call) or inspect.isasyncgenfunction(call):
        kind = "a coroutine function"
    elif inspect.isgeneratorfunction(call):
        kind = "a generator"
    elif not (inspect.isfunction(call) or inspect.ismethod(call)):
        kind = f"a {type(call).__name__}"
    if kind:
        name = getattr(call, "__name__", "handle")
        raise InputError(
            "handler-not-plain",
            f"{what} ({_place(call)}) is {kind}: it would never run. Write it as a plain function, "
            f"def {name}(context, payload), and run what is asynchronous inside it with "
            "asyncio.run(…)",
        )


def _where(call: Callable[..., object]) -> tuple[str, str]:
    """Which function it is: a module that failed half-way may be imported again."""
    return getattr(call, "__module__", ""), getattr(call, "__qualname__", "")


def _place(call: Callable[..., object]) -> str:
    try:
        return f"{inspect.getsourcefile(call)}:{inspect.getsourcelines(call)[1]}"
    except (TypeError, OSError):
        return f"{getattr(call, '__module__', '?')}.{getattr(call, '__qualname__', call)}"


def _ran(value: object) -> object:
    """What a call gave back, if that is no work that is still to be done."""
    if inspect.isawaitable(value) or inspect.isgenerator(value) or inspect.isasyncgen(value):
        if inspect.iscoroutine(value):
            value.close()
        raise ActionError(
            "DID_NOT_RUN", f"it gave back a {type(value).__name__}, which nothing would run"
        )
    return value


def _kept(code: str, value: object) -> str:
    """A value's canonical JSON, of at most 4 KiB."""
    try:
        text = canonical.dumps(value)
    except (InputError, TypeError, ValueError) as error:
        raise ActionError(code, f"only JSON can be kept for the rollback: {error}") from None
    if len(text) > MAX_RESULT_BYTES:
        raise ActionError(
            code, f"{len(text)} bytes of JSON; at most {MAX_RESULT_BYTES} are kept for the rollback"
        )
    return text.decode()
