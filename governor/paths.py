"""Where each document lies, and the ids that are derived from what they stand for."""

import hashlib
import re


def tenant_path(account_id: str) -> str:
    """Where a tenant's document lies."""
    return f"tenants/{account_id}"


def entitlement_path(account_id: str, entitlement_id: str) -> str:
    """Where an entitlement's document lies."""
    return f"tenants/{account_id}/entitlements/{entitlement_id}"


def scaling_path(account_id: str, entitlement_id: str) -> str:
    """Where it lies how an entitlement's limit was changed, and what holds it."""
    return f"tenants/{account_id}/scaling/{entitlement_id}"


def tombstone_path(account_id: str, entitlement_id: str) -> str:
    """Where it is noted that an entitlement was cancelled before it was ever known."""
    return f"tenants/{account_id}/tombstones/{entitlement_id}"


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


def turn_path(turn: str) -> str:
    """The claimed document by which runs of one ``turn`` (``account/acme``) go one at a time."""
    kind, _, name = turn.partition("/")
    return f"turns/{name}" if kind == "account" else f"turns/_~{turn.replace('/', '~')}"


def topic_name(account_id: str) -> str:
    """The tenant's topic (spec, Runbook 1)."""
    return f"tenants.{account_id}.signals"


def account_of_topic(name: str) -> str | None:
    """Whose topic that is; None where it is no tenant's."""
    found = re.fullmatch(r"tenants\.([A-Za-z0-9][A-Za-z0-9_-]{0,127})\.signals", name)
    return found[1] if found else None


def fsm_id(account_id: str, generation: int) -> str:
    """``governor-{account}``, and ``-g2`` and up for its successors (D2)."""
    return f"governor-{account_id}" + (f"-g{generation}" if generation > 1 else "")


def digest_id(prefix: str, *parts: str) -> str:
    """A deterministic id that fits any path: ``prefix-`` and 160 bits of SHA-256, in hex."""
    joined = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    return f"{prefix}-{hashlib.sha256(joined).hexdigest()[:40]}"


def run_id(event_id: str) -> str:
    """The run a webhook starts: the same event can only ever start one."""
    return digest_id("run", event_id)


def triggered_run_id(runbook: str, trigger: str, dedupe_key: str) -> str:
    """The run that anything else starts: one key starts one run of each runbook."""
    return digest_id("run", runbook, trigger, dedupe_key)


def action_id(account_id: str, signal_id: str) -> str:
    """The action a signal starts: the same signal can only ever start one (D8)."""
    return digest_id("action", account_id, signal_id)
