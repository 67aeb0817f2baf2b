"""The documents this system keeps, and where each one lies.

Frozen values; ``model_dump(mode="json")`` is what a Documents port stores. Every timestamp in them
is RFC 3339 UTC with six decimals and ``Z``, so that text order is time order.
"""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from governor.errors import UnreadableError
from governor.fsm import ActionState, GovernorState, RunState

SYSTEM_ACCOUNT = "_system"
"""The ledger of the platform itself; no tenant can have this name (D1)."""

AccountId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]
SkuId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
PlanType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
SignalType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
EventId = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,256}$")]
NO_TIME = datetime(9999, 1, 1, tzinfo=UTC)
"""The creation time of a document whose row holds none: the row was corrupted."""

_NUMBER = "(0|[1-9][0-9]{0,5})"
SemVer = Annotated[str, StringConstraints(pattern=rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}$")]
_DATE, _TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}"


def _is_an_instant(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Timestamp = Annotated[
    str, StringConstraints(pattern=rf"^{_DATE}T{_TIME}Z$"), AfterValidator(_is_an_instant)
]


class Record(BaseModel):
    """A stored document; unknown fields of a newer version are left unread."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def document(self) -> dict[str, Any]:
        """The JSON object that is stored."""
        return self.model_dump(mode="json")

    @classmethod
    def stored(cls, data: Mapping[str, Any]) -> Self:
        """What a store gave back of one.

        Raises:
            UnreadableError: it cannot be parsed as one: a store fault, or a manual edit.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            raise UnreadableError(
                "document-unreadable",
                f"the store gave back what is no {cls.__name__.lower()}: "
                f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}",
                5,
                "DATA_LOSS",
            ) from None

    def evolve(self, **changes: object) -> Self:
        """A validated copy with some fields changed."""
        return self.model_validate({**self.model_dump(), **changes})


class MarketplaceEvent(Record):
    """A marketplace webhook, validated and completed with defaults (D4)."""

    event_type: Literal[
        "entitlement.created", "entitlement.plan_changed", "entitlement.cancelled"
    ] = Field(description="what happened to the entitlement")
    event_id: EventId = Field(description="one event, one run; else the body's SHA-256")
    account_id: AccountId = Field(description="the tenant")
    sku_id: SkuId = Field(description="the product")
    plan_type: PlanType = Field(description="its plan; else `starter`")
    region: Region = Field(description="of its resources; else the setting's")
    event_time: Timestamp = Field(description="when it happened, in UTC; else the arrival")
    is_timed_by_arrival: bool = Field(
        default=False, description="whether the event named no time of its own"
    )
    cancellation_reason: str | None = Field(default=None, description="why, if cancelled")

    def says_the_same(self, other: "MarketplaceEvent") -> bool:
        """Whether two deliveries tell the same event, however each was written."""
        apart = {"event_time", "is_timed_by_arrival"}
        if self.is_timed_by_arrival or other.is_timed_by_arrival:
            return self.model_dump(exclude=apart) == other.model_dump(exclude=apart)
        return self == other


class Tenant(Record):
    """``tenants/{account_id}``: the governor's stored state. One governor per account (D2)."""

    account_id: AccountId
    generation: int = Field(ge=1, description="2 and up after a resubscription")
    fsm_id: str
    topic: str
    state: GovernorState
    region: Region
    created_at: Timestamp
    created_by: str = Field(description="the run, and which attempt, that made this generation")


class Entitlement(Record):
    """``tenants/{account_id}/entitlements/{sku_id}``: what this account bought."""

    account_id: AccountId
    sku_id: SkuId
    plan_type: PlanType
    policy_version: SemVer
    region: Region
    state: GovernorState
    operating_state: str
    concurrent_actions: int
    monthly_actions: int
    event_time: Timestamp
    run_id: str
    made_by: str = Field(default="", description="the run, and which attempt, that wrote it last")


class ProcessClaim(Record):
    """Who acts: enough to tell whether that very process still lives."""

    host: str
    boot_id: str = ""
    namespace: str = Field(default="", description="of process ids; two containers have two")
    pid: int
    process_started: float = Field(description="seconds from the boot, as the kernel counts them")
    claimed_at: Timestamp


class Resolution(Record):
    """An operator's word that a failed rollback was dealt with by hand."""

    operator: str = Field(min_length=1, max_length=256)
    reason: str = Field(min_length=1, max_length=1024)
    resolved_at: Timestamp


class Action(Record):
    """``tenants/{account_id}/actions/{action_id}``: one signal being acted on.

    Limits and handler are copied from the policy at admission, so that an action never changes
    its rules on the way.
    """

    action_id: str
    account_id: AccountId
    sku_id: SkuId
    signal_id: EventId
    signal_type: SignalType
    signal_sha256: str
    payload: str = Field(description="canonical JSON of the signal's payload, an object")
    handler: str
    policy_version: SemVer
    timeout_ms: int
    rollback_timeout_ms: int
    queue_timeout_ms: int
    recoverable: bool
    deadline_from_submit: bool
    state: ActionState = ActionState.PENDING
    accepted_at: Timestamp
    month: str
    claim: ProcessClaim | None = None
    ended_at: Timestamp | None = None
    queue_ms: int | None = None
    run_ms: int | None = None
    error_code: str | None = None
    error_detail: str | None = None
    failure_receipt_id: str | None = None
    has_rollback: bool | None = Field(
        default=None,
        description="false: nothing to undo was declared; None: release 0.1.0 asked not",
    )
    is_alerted: bool | None = Field(
        default=None, description="whether its failing rollback was alerted; None: by release 0.1.0"
    )
    result: str | None = Field(default=None, description="canonical JSON the handler returned")
    learned: str | None = Field(default=None, description="canonical JSON a failed handler learned")
    resolution: Resolution | None = None
    rollback_attempts: int = 0
    retry_at: Timestamp | None = None


class Effect(StrEnum):
    """What a step does to one resource: meant (before it acts), and then done."""

    CREATE = "create"
    CHANGE = "change"
    KEEP = "keep"
    CREATED = "created"
    CHANGED = "changed"
    FOUND = "found"

    @property
    def done(self) -> "Effect":
        """What has become of it once the step is done."""
        meant = {self.CREATE: self.CREATED, self.CHANGE: self.CHANGED, self.KEEP: self.FOUND}
        return meant.get(self, self)


class JournalEntry(Record):
    """What a run's journal says of one step; written before the step acts."""

    state: Literal["intent", "done", "undone"]
    effects: dict[str, Effect] = Field(
        default_factory=dict, description="resource -> what is meant, or was done, to it"
    )
    result: dict[str, Any] = Field(default_factory=dict)
    claim: ProcessClaim | None = None
    undo_claim: ProcessClaim | None = None
    attempts: int = Field(default=0, description="how often it was put off")
    error: str | None = Field(default=None, description="why it, or its undo, was put off last")

    def made(self, resource: str) -> bool:
        """Whether this run created a resource, or may have: only such a one is removed again."""
        return self.effects.get(resource) in (Effect.CREATE, Effect.CREATED)


class Cancellation(Record):
    """An operator's wish that a run be undone; acknowledged at its next step."""

    operator: str = Field(min_length=1, max_length=256)
    reason: str = Field(max_length=1024)
    requested_at: Timestamp


class Run(Record):
    """``runs/{run_id}``: one execution of a runbook, and the claim of the event that began it."""

    run_id: str
    runbook: str
    definition_sha256: str
    account_id: AccountId
    event_id: EventId
    body_sha256: str
    body: str = Field(description="the webhook's raw body, as text")
    event: MarketplaceEvent
    state: RunState = RunState.PENDING
    attempt: int = 1
    journal: dict[str, JournalEntry] = Field(default_factory=dict)
    started_at: Timestamp
    deadline_at: Timestamp
    error_code: str | None = None
    error_detail: str | None = None
    failed_step: str | None = None
    retryable: bool = False
    receipt_id: str | None = None
    retry_at: Timestamp | None = Field(default=None, description="no process takes it up before")
    undo_attempts: int = 0
    cancellation: Cancellation | None = None

    @property
    def maker(self) -> str:
        """This attempt at the run, as the documents it creates name it."""
        return f"{self.run_id}/{self.attempt}"


def tenant_path(account_id: str) -> str:
    """Where a tenant's document lies."""
    return f"tenants/{account_id}"


def entitlement_path(account_id: str, sku_id: str) -> str:
    """Where an entitlement's document lies."""
    return f"tenants/{account_id}/entitlements/{sku_id}"


def action_path(account_id: str, action_id: str) -> str:
    """Where an action's document lies."""
    return f"tenants/{account_id}/actions/{action_id}"


def receipt_path(account_id: str, receipt_id: str) -> str:
    """Where a receipt lies; ``account_id`` may be ``_system``."""
    return f"tenants/{account_id}/receipts/{receipt_id}"


def text_path(account_id: str, receipt_id: str) -> str:
    """Where the free text lies that a receipt names by its SHA-256 (D30)."""
    return f"tenants/{account_id}/texts/{receipt_id}"


def seal_path(account_id: str, seal_id: str) -> str:
    """Where a seal of a ledger lies."""
    return f"tenants/{account_id}/seals/{seal_id}"


def checkpoint_path(account_id: str, seal_id: str) -> str:
    """Where the signed checkpoint of a seal lies; its copy in Objects is ``mirror_name``."""
    return f"tenants/{account_id}/checkpoints/{seal_id}"


def mirror_name(account_id: str, seal_id: str) -> str:
    """The object that holds a checkpoint where a restored database cannot take it back."""
    return f"checkpoints/{account_id}/{seal_id}"


def run_path(run_id: str) -> str:
    """Where a run's document lies."""
    return f"runs/{run_id}"


def turn_path(account_id: str) -> str:
    """The claimed document by which the runs of one account take turns."""
    return f"turns/{account_id}"


def topic_name(account_id: str) -> str:
    """The tenant's topic (spec, Runbook 1)."""
    return f"tenants.{account_id}.signals"


def fsm_id(account_id: str, generation: int) -> str:
    """``governor-{account}``, and ``-g2`` and up for its successors (D2)."""
    return f"governor-{account_id}" + (f"-g{generation}" if generation > 1 else "")


def digest_id(prefix: str, *parts: str) -> str:
    """A deterministic id that fits any path: ``prefix-`` and 160 bits of SHA-256, in hex."""
    joined = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    return f"{prefix}-{hashlib.sha256(joined).hexdigest()[:40]}"


def run_id(event_id: str) -> str:
    """The run an event starts: the same event can only ever start one."""
    return digest_id("run", event_id)


def action_id(account_id: str, signal_id: str) -> str:
    """The action a signal starts: the same signal can only ever start one (D8)."""
    return digest_id("action", account_id, signal_id)


def timestamp(at: datetime) -> str:
    """RFC 3339 text of an aware datetime, UTC, microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instant(text: str) -> datetime:
    """The aware datetime of a stored timestamp."""
    return datetime.fromisoformat(text)


def elapsed_ms(since: str, until: datetime) -> int:
    """Whole milliseconds from a stored timestamp, never negative."""
    return max(0, round((until - instant(since)).total_seconds() * 1000))
