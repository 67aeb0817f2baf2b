"""Health: when and why the system refuses, and the records of an outage (D11, D15).

A *scope* is what fails together: ``ALL`` tenants, or ``SOME``, those a drill names.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from governor.paths import digest_id
from governor.records import AccountId, Record, Timestamp

ALIVE_FOR_S = 35
"""How long one sign of life is believed: three beats of 10 s and a margin."""

CHECKS_TO_DEGRADE = 3
"""Checks that fail in a row before everything new is refused (spec, Runbook 4)."""

MAX_DRILLED_ACCOUNTS = 100
"""Each gets a receipt of its own, in one commit."""


class Scope(StrEnum):
    """Who is affected by an outage together."""

    ALL = "all"
    SOME = "some"


class Fault(StrEnum):
    """The ways in which a store can fail, as a drill has it fail."""

    REFUSE = "refuse"
    HANG = "hang"
    SLOW = "slow"
    GARBAGE = "garbage"
    DEAF = "deaf"
    QUOTA = "quota"
    RANDOM = "random"


class Drill(Record):
    """An outage on purpose: Documents fail like this, for these accounts, until it is over."""

    drill_id: str
    fault: Fault
    accounts: list[AccountId] = Field(
        default_factory=list, description="empty: those of all tenants"
    )

    @property
    def scope(self) -> Scope:
        """Whom it affects."""
        return Scope.SOME if self.accounts else Scope.ALL


class Silence(StrEnum):
    """Why the lease ran out although no check had failed."""

    BEAT = "beat_silent"
    CHECKER = "health_check_silent"
    MEMORY = "memory_unavailable"
    WIPED = "memory_lost"
    STOPPED = "stopped"

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    Silence.BEAT: "beat did not fire, so that no health check was carried out",
    Silence.CHECKER: "no health check was carried out, although beat fired",
    Silence.MEMORY: "Memory did not answer",
    Silence.WIPED: "Memory had lost what it held, and was rebuilt from Documents",
    Silence.STOPPED: "everything had been stopped",
}


class Outage(Record):
    """``outages/{outage_id}``: a time of refusal, whether the store or a watcher had failed."""

    outage_id: str
    scope: Scope = Scope.ALL
    accounts: list[AccountId] = Field(default_factory=list)
    state: Literal["open", "cleared"] = "open"
    reason: str = Field(description="as the receipt that clears it says")
    error_code: str
    error_detail: str
    failure_count: int = 0
    began_at: Timestamp = Field(description="the first failed check's start, or the lease's end")
    degraded_at: Timestamp | None = None
    recovered_at: Timestamp | None = None
    accepted: int | None = Field(
        default=None, description="admitted while degraded; None: Memory was lost meanwhile"
    )
    drill: bool = False

    @property
    def affected(self) -> Literal["all"] | list[str]:
        """As the receipts say it."""
        return list(self.accounts) if self.scope is Scope.SOME else "all"


def outage_id(scope: Scope, began_at: str) -> str:
    """One outage is one document: every process that reports it derives the same id."""
    return digest_id("outage", scope, began_at)


def outage_path(identity: str) -> str:
    """Where an outage's document lies."""
    return f"outages/{identity}"


def silence(
    *,
    checked_ago_s: float | None,
    beat_seen_for_s: float,
    memory_seen_for_s: float,
    worker_up_s: float,
) -> Silence:
    """What had failed while no check was carried out, by who was seen last, and when.

    Args:
        checked_ago_s: since the check before; None when Memory knows of none.
        beat_seen_for_s: for how long things were done because beat fired, without a break.
        memory_seen_for_s: for how long the ingress has reached Memory, without a break.
        worker_up_s: since this worker was started.
    """
    if checked_ago_s is None:
        return Silence.WIPED
    if memory_seen_for_s < checked_ago_s:
        return Silence.STOPPED if worker_up_s < checked_ago_s else Silence.MEMORY
    return Silence.BEAT if beat_seen_for_s < checked_ago_s else Silence.CHECKER
