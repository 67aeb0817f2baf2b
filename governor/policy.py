"""Policies: what a plan may do, how much of it, and how fast.

A policy is one JSON document per SKU, plan and version. It is validated whole when it is loaded:
a signal to an undeclared action or an unregistered handler is rejected then, not at its use.
"""

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic import model_validator as validator

from governor.errors import InputError
from governor.records import PlanType, SemVer, SignalType, SkuId

MAX_POLICY_BYTES = 1 << 20
"""Upper bound of a policy document."""

Usd = Annotated[Decimal, Field(ge=0, le=Decimal(10**9), max_digits=18, decimal_places=6)]
HandlerName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")]
StateName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL begins with https:// (http:// to a network that is allowed)")
    if "@" in parts.netloc or parts.fragment or parts.port == 0:  # an impossible port raises too
        raise ValueError("a URL has no user, password or fragment, and a port above 0")
    return text


ActionUrl = Annotated[
    str, StringConstraints(pattern=r"^[!-~]+$", max_length=2048), AfterValidator(_url)
]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prices(_Strict):
    """What use costs; Runbook 3 reckons a scale-up's cost from it."""

    action_usd: Usd = Field(default=Decimal(0), description="of one action")
    concurrent_action_month_usd: Usd = Field(
        default=Decimal(0), description="of one more action at once, for a month"
    )


class Quota(_Strict):
    """How much a plan may use (D24)."""

    monthly_actions: int = Field(ge=0, le=10**12, description="in a calendar month, UTC")
    concurrent_actions: int = Field(
        default=20, ge=1, le=10_000, description="in flight at once, to begin with"
    )
    max_concurrent_actions: int = Field(
        default=100, ge=1, le=10_000, description="how far scaling may go"
    )
    monthly_budget_usd: Usd = Field(default=Decimal(0), description="what scaling may cost")
    prices: Prices = Field(default=Prices(), description="what use costs")

    @validator(mode="after")
    def _ordered(self) -> Self:
        if self.concurrent_actions > self.max_concurrent_actions:
            raise ValueError("concurrent_actions is above max_concurrent_actions")
        return self


class Bake(_Strict):
    """How a version that has come into force is watched, and when everybody leaves it again."""

    seconds: int = Field(default=300, ge=0, le=86_400, description="how long; 0: not at all")
    failing_percent: int = Field(
        default=10,
        ge=0,
        le=100,
        description="more of its actions fail than this, and than twice the version's before",
    )
    min_actions: int = Field(
        default=20, ge=1, le=1_000_000, description="fewer ended actions prove nothing"
    )


class ActionSpec(_Strict):
    """How one action is carried out (D9, D10, D17): by a handler, or by a request to a URL."""

    handler: HandlerName | None = Field(default=None, description="a registered handler")
    execute_url: ActionUrl | None = Field(
        default=None, description="instead of a handler: where a request has it carried out"
    )
    rollback_url: ActionUrl | None = Field(
        default=None,
        description="beside `execute_url`: where a request undoes it; `null`: nothing to undo",
    )
    timeout_ms: int = Field(
        default=500, ge=50, le=30_000, description="from the handler's start to its deadline"
    )
    rollback_timeout_ms: int = Field(
        default=100,
        ge=10,
        le=30_000,
        description="the rollback's deadline (of a URL, else `timeout_ms`); each further attempt "
        "has twice the time, up to 30 s",
    )
    queue_timeout_ms: int = Field(
        default=15_000,
        ge=100,
        le=3_600_000,
        description="an action that was not started by then ends `failed`",
    )
    recoverable: bool = Field(
        default=True, description="whether a failure that says nothing else is rolled back"
    )
    deadline_from: Literal["start", "submit"] = Field(
        default="start", description="`submit`: the time in the queue counts too"
    )

    @validator(mode="before")
    @classmethod
    def _time_to_undo(cls, given: Any) -> Any:
        """A request has as long to undo as to do: it may have to open a connection first."""
        if isinstance(given, Mapping) and given.get("execute_url"):
            return {"rollback_timeout_ms": given.get("timeout_ms", 500), **given}
        return given

    @validator(mode="after")
    def _one_way(self) -> Self:
        if (self.handler is None) == (self.execute_url is None):
            raise ValueError("an action names either a handler or an execute_url")
        if self.execute_url and "rollback_url" not in self.model_fields_set:
            raise ValueError("execute_url needs a rollback_url; null where nothing is to be undone")
        if self.handler and self.rollback_url:
            raise ValueError("rollback_url goes with execute_url; a handler has its own rollback")
        return self

    @property
    def target(self) -> str:
        """What carries it out: the handler's name, or the URL."""
        return self.handler or self.execute_url or ""


class Transition(_Strict):
    """One legal move of the operating states a policy declares for its entitlement (D23)."""

    source: StateName = Field(description="the state before")
    event: StateName = Field(description="what happens")
    target: StateName = Field(description="the state after")


class Policy(_Strict):
    """One version of what ``plan_type`` of ``sku_id`` may do."""

    sku_id: SkuId = Field(description="the product")
    plan_type: PlanType = Field(description="its plan")
    policy_version: SemVer = Field(description="`major.minor.patch`; a version never changes")
    rolls_back: SemVer | None = Field(
        default=None, description="the earlier version whose content this one is again"
    )
    quota: Quota = Field(description="how much the plan may use")
    actions: dict[HandlerName, ActionSpec] = Field(
        min_length=1, max_length=500, description="by name: what can be done"
    )
    signals: dict[SignalType, HandlerName] = Field(
        min_length=1, max_length=500, description="signal type: the action it triggers"
    )
    permissions: frozenset[HandlerName] = Field(
        max_length=500, description="the actions this plan permits"
    )
    initial_state: StateName = Field(default="active", description="of a new entitlement")
    states: frozenset[StateName] = Field(
        default=frozenset({"active"}),
        min_length=1,
        max_length=200,
        description="the operating states of an entitlement",
    )
    transitions: tuple[Transition, ...] = Field(
        default=(), max_length=2000, description="the legal moves between them"
    )
    dispatch_weight: int = Field(
        default=1, ge=1, le=100, description="actions carried out each turn, where tenants wait"
    )
    bake: Bake = Field(default=Bake(), description="how the version is watched at first")

    @validator(mode="after")
    def _closed(self) -> Self:
        for kind, names in (
            ("signals lead to", self.signals.values()),
            ("permissions name", self.permissions),
        ):
            if unknown := sorted(set(names) - set(self.actions)):
                raise ValueError(f"{kind} undeclared actions: {', '.join(unknown)}")
        named = {self.initial_state, *(s for t in self.transitions for s in (t.source, t.target))}
        if unknown := sorted(named - self.states):
            raise ValueError(f"undeclared states: {', '.join(unknown)}")
        moves = [(t.source, t.event) for t in self.transitions]
        if len(set(moves)) < len(moves):
            twice = next(move for move in moves if moves.count(move) > 1)
            raise ValueError(f"two transitions from {twice[0]} by {twice[1]}")
        return self

    def route(self) -> Mapping[str, str]:
        """Permitted signal type -> action; the ingress refuses other types with 403."""
        return {s: a for s, a in self.signals.items() if a in self.permissions}


def refuse_if_too_large(size: int) -> None:
    """Raise InputError ``policy-invalid`` for more bytes than a policy may have."""
    if size > MAX_POLICY_BYTES:
        raise InputError("policy-invalid", f"a policy is at most {MAX_POLICY_BYTES} bytes")


def parse(document: bytes, known_handlers: Collection[str] | None) -> Policy:
    """The policy in ``document``, whole and usable, or a refusal that names each fault.

    With ``known_handlers`` None it may name any.

    Raises:
        InputError: too large, not JSON, a field out of bounds, or an unregistered handler.
    """
    refuse_if_too_large(len(document))
    try:
        policy = Policy.model_validate_json(document, strict=True)
    except ValidationError as error:
        raise InputError("policy-invalid", f"the policy is not valid: {_faults(error)}") from None
    named = {action.handler for action in policy.actions.values() if action.handler}
    if known_handlers is not None and (unknown := sorted(named - set(known_handlers))):
        raise InputError(
            "policy-unknown-handler",
            f"policy {policy.sku_id}/{policy.plan_type} {policy.policy_version} names unknown "
            f"handlers: {', '.join(unknown)}. Known: {', '.join(sorted(known_handlers)) or 'none'}",
        )
    return policy


def _faults(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_input=False)[:10]
    )
