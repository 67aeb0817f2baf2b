import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from governor import policy
from governor.errors import InputError

SAMPLES = sorted((Path(__file__).parents[2] / "config" / "policies").glob("*.json"))
HANDLERS = {"crm.resize"}
GOOD: dict[str, Any] = {
    "sku_id": "crm",
    "plan_type": "starter",
    "policy_version": "1.2.3",
    "quota": {"monthly_actions": 10, "concurrent_actions": 2, "max_concurrent_actions": 4},
    "actions": {"resize": {"handler": "crm.resize"}},
    "signals": {"seats.changed": "resize"},
    "permissions": ["resize"],
    "states": ["active", "paused"],
    "transitions": [{"source": "active", "event": "pause", "target": "paused"}],
}


URL = "https://crm.example/seats"


def _changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    document = copy.deepcopy(GOOD)
    change(document)
    return json.dumps(document).encode()


def test_a_good_policy_is_parsed_with_its_defaults() -> None:
    parsed = policy.parse(json.dumps(GOOD).encode(), HANDLERS)

    assert parsed.actions["resize"].timeout_ms == 500
    assert parsed.actions["resize"].rollback_timeout_ms == 100
    assert parsed.route() == {"seats.changed": "resize"}


def test_an_action_may_be_a_request_to_a_url() -> None:
    spec = {"execute_url": URL, "rollback_url": f"{URL}/undo"}
    document = _changed(lambda d: d["actions"].update(resize=spec))

    parsed = policy.parse(document, ())

    assert parsed.actions["resize"].target == URL
    assert policy.ActionSpec(execute_url=URL, rollback_url=None).rollback_url is None


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda p: p.name)
def test_the_shipped_policies_are_good(sample: Path) -> None:
    handlers = {f"demo.{n}" for n in "succeed sleep fail swallow spin rollback_fails".split()}

    parsed = policy.parse(sample.read_bytes(), handlers)

    assert sample.name == f"{parsed.sku_id}.{parsed.plan_type}.json"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(sku_id="../etc"), "sku_id"),
        (lambda d: d.update(policy_version="1.2"), "policy_version"),
        (lambda d: d.update(surprise=1), "surprise"),
        (lambda d: d["quota"].update(monthly_actions=-1), "monthly_actions"),
        (lambda d: d["quota"].update(concurrent_actions=5), "above max_concurrent_actions"),
        (lambda d: d["quota"].update(monthly_budget_usd="NaN"), "monthly_budget_usd"),
        (lambda d: d["actions"]["resize"].update(timeout_ms=49), "timeout_ms"),
        (lambda d: d["actions"]["resize"].update(timeout_ms=30_001), "timeout_ms"),
        (lambda d: d["signals"].update({"x": "gone"}), "undeclared actions: gone"),
        (lambda d: d["permissions"].append("gone"), "undeclared actions: gone"),
        (lambda d: d["transitions"][0].update(target="gone"), "undeclared states: gone"),
        (lambda d: d.update(signals={}), "signals"),
        (lambda d: d["actions"].update(x={}), "either a handler or an execute_url"),
        (lambda d: d["actions"]["resize"].update(execute_url=URL), "either a handler or an"),
        (lambda d: d["actions"].update(x={"execute_url": URL}), "needs a rollback_url"),
        (lambda d: d["actions"]["resize"].update(rollback_url=URL), "goes with execute_url"),
        *(
            (
                lambda d, url=url: d["actions"].update(
                    x={"execute_url": url, "rollback_url": None}
                ),
                "execute_url",
            )
            for url in (
                "ftp://example.com/",
                "https://",
                "https://user:secret@example.com/",
                "https://example.com/#part",
                "https://example.com:99999/",
                "https://example.com:0/",
                "https://example.com/with space",
                "https://example.com/" + "x" * 2048,
                "example.com",
            )
        ),
    ],
)
def test_a_fault_is_refused_by_name_when_the_policy_is_loaded(
    change: Callable[[dict[str, Any]], object], says: str
) -> None:
    with pytest.raises(InputError, match=says) as refused:
        policy.parse(_changed(change), HANDLERS)

    assert refused.value.code == "policy-invalid"


def test_an_unknown_handler_is_refused_when_loaded_not_when_used() -> None:
    with pytest.raises(InputError, match=r"unknown handlers: crm\.resize.*Known: other") as refused:
        policy.parse(json.dumps(GOOD).encode(), {"other"})

    assert refused.value.code == "policy-unknown-handler"


@pytest.mark.parametrize("document", [b"", b"[]", b"\xff", b"{" * 10_000], ids=range(4))
def test_what_is_no_policy_at_all_is_refused(document: bytes) -> None:
    with pytest.raises(InputError, match="not valid"):
        policy.parse(document, HANDLERS)


def test_a_huge_document_is_refused_unread() -> None:
    with pytest.raises(InputError, match="at most"):
        policy.parse(b" " * (policy.MAX_POLICY_BYTES + 1), HANDLERS)


def test_a_signal_whose_action_is_not_permitted_has_no_route() -> None:
    parsed = policy.parse(_changed(lambda d: d.update(permissions=[])), HANDLERS)

    assert parsed.route() == {}


def test_two_transitions_from_one_state_by_one_event_are_refused() -> None:
    document = _changed(lambda d: d["transitions"].append(d["transitions"][0]))

    with pytest.raises(InputError, match="two transitions from active by pause"):
        policy.parse(document, HANDLERS)
