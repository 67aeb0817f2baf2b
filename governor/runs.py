"""The record of a run, and of each of its steps."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from governor.errors import ConflictError
from governor.fsm import RunState
from governor.records import EventId, LedgerId, ProcessClaim, Record, Timestamp
from governor.times import elapsed_ms, instant


class Trigger(StrEnum):
    """What may start a run."""

    WEBHOOK = "webhook"
    COMMAND = "command"
    SCHEDULE = "schedule"
    METRIC = "metric"
    NOTIFICATION = "notification"
    PARENT = "parent"


class Effect(StrEnum):
    """What a step does to one resource: meant (before it acts), and then done."""

    CREATE = "create"
    CHANGE = "change"
    REMOVE = "remove"
    KEEP = "keep"
    CREATED = "created"
    CHANGED = "changed"
    REMOVED = "removed"
    FOUND = "found"

    @property
    def done(self) -> "Effect":
        """What has become of it once the step is done."""
        meant = {
            self.CREATE: self.CREATED,
            self.CHANGE: self.CHANGED,
            self.REMOVE: self.REMOVED,
            self.KEEP: self.FOUND,
        }
        return meant.get(self, self)


class Wait(Record):
    """What a step waits for: a moment, or what ``reason`` says."""

    reason: str = Field(max_length=256)
    alarm: str | None = Field(
        default=None, description="the code by which the operator hears of it, as it begins"
    )
    until: Timestamp | None = Field(default=None, description="not looked at before")
    since: Timestamp | None = Field(default=None, description="set as the wait begins")


class JournalEntry(Record):
    """What a run's journal says of one step; written before the step acts."""

    state: Literal["waiting", "intent", "done", "undone"]
    effects: dict[str, Effect] = Field(
        default_factory=dict, description="resource -> what is meant, or was done, to it"
    )
    result: dict[str, Any] = Field(default_factory=dict)
    began_at: Timestamp | None = Field(
        default=None, description="when it first acted, its waiting apart; not of earlier releases"
    )
    done_at: Timestamp | None = Field(default=None, description="when it was done")
    undone_at: Timestamp | None = Field(default=None, description="when its undo was done")
    claim: ProcessClaim | None = None
    undo_claim: ProcessClaim | None = None
    attempts: int = Field(default=0, description="how often it was put off")
    error: str | None = Field(default=None, description="why it, or its undo, was put off last")
    failing_since: Timestamp | None = Field(
        default=None, description="when it failed first, where its run cannot be undone any more"
    )
    is_told: bool = Field(default=False, description="whether the operator has heard of that")
    wait: Wait | None = Field(default=None, description="what it waits for, or waited for last")
    cursor: str | None = Field(default=None, description="how far it got through its population")
    undo_cursor: str | None = Field(default=None, description="how far its undo got")
    members: int = Field(default=0, description="of its population that it is done with")
    is_through: bool = Field(default=False, description="whether it is done with all of them")
    is_undone_through: bool = Field(default=False, description="the same of its undo")

    @property
    def took_ms(self) -> int | None:
        """How long it took from its first act on; None while it is not known."""
        if self.began_at is None or self.done_at is None:
            return None
        return elapsed_ms(self.began_at, instant(self.done_at))

    def made(self, resource: str) -> bool:
        """Whether this run created a resource, or may have: only such a one is removed again."""
        return self.effects.get(resource) in (Effect.CREATE, Effect.CREATED)


class Cancellation(Record):
    """An operator's wish that a run be undone; acknowledged at its next step."""

    operator: str = Field(min_length=1, max_length=256)
    reason: str = Field(max_length=1024)
    requested_at: Timestamp


class Run(Record):
    """``runs/{run_id}``: one execution of a runbook, and the claim of what began it."""

    run_id: str
    runbook: str
    definition_sha256: str
    account_id: LedgerId = Field(description="on whose ledger it is receipted")
    trigger: Trigger
    inputs: dict[str, Any] = Field(description="as the runbook's own model has them")
    dedupe_key: EventId = Field(description="one key, one run: a webhook's ``event_id``")
    turn: str = Field(description="whom it takes turns with: ``account/acme``, ``platform``")
    has_turn: bool = Field(default=False, description="whether its turn is taken")
    parent: str | None = Field(default=None, description="the run that started it")
    body_sha256: str = Field(default="", description="of a webhook's raw body")
    body: str = Field(default="", description="that body, as text")
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

    @model_validator(mode="before")
    @classmethod
    def _of_release_0_1_0(cls, stored: Any) -> Any:
        """A run as 0.1.0 stored it: there was one runbook, and a webhook began each run."""
        if not isinstance(stored, Mapping) or "event" not in stored or "inputs" in stored:
            return stored
        return {
            **stored,
            "trigger": Trigger.WEBHOOK,
            "inputs": stored["event"],
            "dedupe_key": stored.get("event_id"),
            "turn": f"account/{stored.get('account_id')}",
        }

    @property
    def maker(self) -> str:
        """This attempt at the run, as the documents it creates name it."""
        return f"{self.run_id}/{self.attempt}"


class StepResult(Record):
    """What a step tells the steps after it; ``step`` names it."""

    step: ClassVar[str]

    @classmethod
    def of(cls, run: Run) -> Self:
        """What this run's step told.

        Raises:
            ConflictError: it is not done.
            UnreadableError: it told something else.
        """
        entry = run.journal.get(cls.step)
        if entry is None or entry.state != "done":
            raise ConflictError("step-not-done", f"{cls.step} of {run.run_id} is not done")
        return cls.stored(entry.result)
