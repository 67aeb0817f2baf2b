"""A document without its content: pure functions, which a purge and the retention share."""

from collections.abc import Mapping
from typing import Any

ERASED = "erased"
"""In the place of a customer's own id or words."""


def aged_action(data: Mapping[str, Any]) -> dict[str, Any]:
    """An action without its content; the id and digest of its signal stay: it never acts twice."""
    kept = {name: data[name] for name in ("signal_id", "signal_sha256") if name in data}
    return {**stripped_action(data), **kept}


def stripped_action(data: Mapping[str, Any]) -> dict[str, Any]:
    """An action without any words, and without the id and digest of its signal."""
    own: dict[str, Any] = {
        "payload": "{}",
        "signal_id": ERASED,
        "signal_sha256": "0" * 64,
        "error_detail": None,
        "result": None,
        "learned": None,
    }
    if resolution := data.get("resolution"):
        own["resolution"] = {**resolution, "reason": ERASED}
    return {**data, **{name: value for name, value in own.items() if data.get(name) is not None}}


def stripped_run(data: Mapping[str, Any]) -> dict[str, Any]:
    """A run without the body of its event, and without anybody's words."""
    inputs = dict(data.get("inputs") or {})
    if inputs.get("cancellation_reason") is not None:
        inputs["cancellation_reason"] = None
    journal = {
        name: {**entry, "error": None} if entry.get("error") else entry
        for name, entry in (data.get("journal") or {}).items()
    }
    if inputs.get("reason") is not None:
        inputs["reason"] = ERASED
    stripped = {**data, "inputs": inputs, "journal": journal}
    if cancellation := data.get("cancellation"):
        stripped["cancellation"] = {**cancellation, "reason": ERASED}
    if data.get("body"):
        stripped["body"] = ""
    if data.get("error_detail"):
        stripped["error_detail"] = None
    return stripped
