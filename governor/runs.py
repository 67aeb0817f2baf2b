"""The record of a run, and of each of its steps."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from governor.fsm import RunState
from governor.records import AccountId, EventId, ProcessClaim, Record, Timestamp
from governor.tenancy import MarketplaceEvent


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
