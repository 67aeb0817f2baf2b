"""No receipt that is made now has room for a customer's free text (D30)."""

from collections.abc import Iterator
from typing import Any

import pytest

from ledger import contracts

NAMES = {
    "action_id",
    "alert_severity",
    "compatibility_check",
    "cause",
    "error_code",
    "event_id",
    "failed_step",
    "firestore_path",
    "fsm_id",
    "handler",
    "key_id",
    "limit",
    "message_id",
    "operator",
    "policy_version",
    "previous_key_id",
    "pubsub_topic",
    "reason",
    "run_id",
    "status",
    "subject",
    "{key}",
}
"""Fields without a pattern that hold ids and words of ours, at most 256 characters of them."""


def _texts(schema: dict[str, Any], root: dict[str, Any], name: str) -> Iterator[tuple[str, int]]:
    """Every field that takes any text, and how much of it."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    closed = any(each in schema for each in ("pattern", "enum", "const"))
    if schema.get("type") == "string" and not closed:
        yield name, schema.get("maxLength", 1 << 30)
    for each in schema.get("anyOf", []):
        yield from _texts(each, root, name)
    if schema.get("type") == "array":
        yield from _texts(schema["items"], root, name)
    for inner, each in schema.get("properties", {}).items():
        yield from _texts(each, root, inner)
    if isinstance(schema.get("additionalProperties"), dict):
        yield from _texts(schema["additionalProperties"], root, "{value}")
        keys = {"type": "string", **schema.get("propertyNames", {})}
        yield from _texts(keys, root, "{key}")


@pytest.mark.parametrize("operation", sorted(contracts.MODELS))
def test_no_field_takes_free_text(operation: str) -> None:
    schema = contracts.MODELS[operation].model_json_schema()
    found = dict(_texts(schema, schema, ""))

    assert {name: size for name, size in found.items() if name not in NAMES or size > 256} == {}


@pytest.mark.parametrize("operation", sorted(contracts.VERSIONS))
def test_a_receipt_is_read_as_it_was_written(operation: str) -> None:
    """What is None is not written, and a value that JSON has no type for is refused."""
    for model in contracts.VERSIONS[operation].values():
        schema = model.model_json_schema()
        fields = schema["properties"]
        nullable = [n for n, f in fields.items() if {"type": "null"} in f.get("anyOf", [])]
        assert not set(nullable) & set(schema["required"]), model
        assert not [n for n, f in fields.items() if "$ref" in f and _is_enum(f, schema)], model


def _is_enum(field: dict[str, Any], root: dict[str, Any]) -> bool:
    return "enum" in root["$defs"][field["$ref"].rpartition("/")[2]]


def test_the_scan_sees_a_field_of_free_text() -> None:
    schema = contracts.VERSIONS["run_cancelled"][1].model_json_schema()

    assert ("reason", 1024) in set(_texts(schema, schema, ""))
