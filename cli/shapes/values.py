"""The values that commands print with ``--json``. A receipt's own fields have schemas by operation.

An error is ``{"error": {"code", "detail"}}`` for every command.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from cli.overview.problems import Problem
from governor.actions import Action
from governor.runs import Run

Fields = dict[str, Any]
"""A receipt's own fields, as its contract has them."""


class Shape(BaseModel):
    """These fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ShownAction(Action):
    """An action, and its receipts, oldest first."""

    receipts: list[Fields]


class ShownRun(Run):
    """A run without its event's body."""

    event_id: str | None = None
    event: dict[str, Any] | None = None


class Accepted(Shape):  # noqa: D101
    action_id: str
    state: Literal["pending"]


class Published(Shape):  # noqa: D101
    message_id: str


class Page(Shape):  # noqa: D101
    items: list[Fields]
    next_cursor: str | None


class Queue(Shape):  # noqa: D101
    account_id: str
    depth: int
    oldest_s: float


class Queues(Shape):  # noqa: D101
    depth: int
    longest: list[Queue]


class Tenant(Shape):  # noqa: D101
    account_id: str
    state: str
    entitlements: list[str]


class Purge(Shape):  # noqa: D101
    account_id: str
    looks_at: dict[str, int]
    archives: list[str]
    keeps: dict[str, str]
    run_id: str | None = None
    receipt_id: str | None = None


class Rule(Shape):  # noqa: D101
    rule: str
    path: str
    old: str | None
    new: str | None
    against: str


class InForce(Shape):  # noqa: D101
    sku_id: str
    plan_type: str
    policy_version: str | None
    fault: str | None


class Policy(Shape):  # noqa: D101
    policy_digest: str
    content_digest: str
    document: str


class Upgrade(Shape):  # noqa: D101
    sku_id: str
    plan_type: str
    policy_version: str
    outcome: str | None = None
    run_id: str | None = None
    receipt_id: str | None = None
    policy_digest: str | None = None
    in_force: str | None = None
    is_compatible: bool | None = None
    report_sha256: str | None = None
    findings: list[Rule] | None = None


class Trial(Shape):  # noqa: D101
    version: str
    until: str
    state: str
    accounts: list[str]
    percent: int | None


class Process(Shape):  # noqa: D101
    role: str
    host: str
    pid: int
    state: Literal["ack", "nack", "silent"]
    is_stale: bool
    version: str | None
    answered_at: str | None
    heard_ago_s: float
    code: str
    detail: str


class PolicyStatus(Shape):  # noqa: D101
    sku_id: str
    plan_type: str
    in_force: str
    since: str | None
    registered: list[str]
    governors: dict[str, int]
    refused: list[str]
    bake: Trial | None
    canary: Trial | None
    processes: list[Process]
    processes_are: str


class Alert(Shape):  # noqa: D101
    alert_id: str
    severity: str
    cause: str
    account_id: str
    subject: str
    detail: str


class Letter(Shape):  # noqa: D101
    alert: Alert
    address: str
    attempts: int
    fault: str


class Key(Shape):  # noqa: D101
    key_id: str
    fingerprint: str
    public_key: str
    valid_from: str
    valid_until: str | None
    leaked_at: str | None
    in_use: bool


class Rotated(Shape):  # noqa: D101
    key_id: str
    previous_key_id: str
    previous_leaked_at: str | None


class Check(Shape):  # noqa: D101
    holds: bool
    fault: str


class VerifiedReceipt(Shape):  # noqa: D101
    receipt_id: str
    account_id: str
    verdict: str
    index: int | None
    checks: dict[str, Check]


class Finding(Shape):  # noqa: D101
    subject: str
    check: str
    fault: str


class Verified(Shape):  # noqa: D101
    account_id: str
    verdict: str
    sealed: int
    unsealed: int | None = None
    seals: int | None = None
    first: int | None = None
    notes: list[str] | None = None
    root: str | None
    extends: list[str]
    clock_off: int
    clock_off_s: float
    findings: list[Finding]
    more_findings: int


class Objective(Shape):  # noqa: D101
    objective: str
    measure: str
    bar: str
    target: float
    unit: str
    events: int
    misses: int
    attained: float | None
    met: bool
    budget_left: float | None
    p50: float | None
    p99: float | None


class Slo(Shape):  # noqa: D101
    since: str
    until: str
    objectives: list[Objective]


class Span(Shape):  # noqa: D101
    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    began_ns: int
    duration_ms: float
    attributes: dict[str, Any]
    error: str


class Copy(Shape):  # noqa: D101
    folder: str
    made_at: str
    size_bytes: int
    ledgers: int
    sealed_receipts: int
    keys: str | None
    broken: dict[str, str]
    not_copied: dict[str, str]


class RestoredLedger(Shape):  # noqa: D101
    account_id: str
    is_valid: bool
    sealed: int
    missing: int | None
    words: str


class Restored(Shape):  # noqa: D101
    copied_at: str
    set_aside: str | None
    ledgers: list[RestoredLedger]


class Step(Shape):  # noqa: D101
    name: str
    does: str
    undoes: str | None
    effects: dict[str, str]


class Refusal(Shape):  # noqa: D101
    step: str
    code: str
    detail: str


class Plan(Shape):  # noqa: D101
    steps: list[Step]
    refused_by: Refusal | None
    ends_with: str | None
    waits_for: str | None


class Component(Shape):  # noqa: D101
    pid: int
    up_s: int


class Status(Shape):
    """``/readyz``'s answer, the programs, each part, or ``{"unknown": why}``, and the problems."""

    ready: bool
    missing: dict[str, str]
    mode: str | None = None
    lease_s: float | None = None
    failed_checks: int | None = None
    error_code: str | None = None
    since: str | None = None
    refused: int | None = None
    spooled: int | None = None
    degraded_tenants: int | None = None
    drill: str | None = None
    undelivered_alerts: int | None = None
    alert_fault: str | None = None
    troubles: list[dict[str, Any]] | None = None
    version: str
    state_dir: str
    components: dict[str, Component]
    heard: dict[str, Any] | None = None
    work: dict[str, Any] | None = None
    failing: list[dict[str, Any]] | dict[str, Any] | None = None
    runs: dict[str, Any] | None = None
    alerts: dict[str, Any] | None = None
    ledgers: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    disk: dict[str, Any] | None = None
    problems: list[Problem]


class Stopped(Shape):  # noqa: D101
    stopped: bool


class Started(Shape):  # noqa: D101
    url: str
    flower: str
    state: str
    secrets: str
    log: str


class Prepared(Shape):  # noqa: D101
    state_dir: str
    notices: list[str]


class Alive(Shape):  # noqa: D101
    program: str
    alive: bool


class Secrets(Shape):  # noqa: D101
    secrets: list[str]
