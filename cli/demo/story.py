"""The story the demo plays: each scene, what must come of it, and the spec's SLI for it."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from adapters.local.waiting import until
from governor.errors import OutageError
from governor.records import SYSTEM_ACCOUNT
from ingress.client import Client, checked

ACCOUNT = "demo-customer"
_WEBHOOK = {
    "event_type": "entitlement.created",
    "event_id": "demo-event-1",
    "account_id": ACCOUNT,
    "sku_id": "demo-sku",
    "plan_type": "professional",
    "region": "europe-west1",
}


class UnexpectedError(Exception):
    """The system did something else than the story says."""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of a scene. ``measured_ms`` is set against ``sli_ms`` where the spec has one."""

    outcome: str
    measured_ms: float | None = None
    sli_ms: float | None = None
    sli: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing that happens."""

    title: str
    play: Callable[[Client, dict[str, Any]], Told]


def _expect(found: object, wanted: object, what: str) -> None:
    if found != wanted:
        raise UnexpectedError(f"{what}: expected {wanted!r}, found {found!r}")


def _subscribe(client: Client, memory: dict[str, Any]) -> Told:
    started = time.monotonic()
    answer = client.post_webhook(_WEBHOOK)
    elapsed_ms = (time.monotonic() - started) * 1000
    _expect(answer.status_code, 200, f"webhook ({answer.text[:300]})")
    memory["receipt"], memory["subscribed_at"] = answer.json(), time.monotonic()
    _expect(memory["receipt"]["operation"], "entitlement_active", "its receipt")
    return Told("200, governor active", elapsed_ms, 2000, "webhook to receipt < 2 s")


def _first_signal(client: Client, memory: dict[str, Any]) -> Told:
    action = _act(client, "s-succeed", "demo.succeed", {}, "complete")
    since_ms = (time.monotonic() - memory["subscribed_at"]) * 1000
    memory["action_id"] = action["action_id"]
    return Told("complete", since_ms, 1000, "first signal < 1 s after the webhook")


def _timeout(client: Client, _memory: dict[str, Any]) -> Told:
    action = _act(client, "s-timeout", "demo.sleep", {"seconds": 5}, "rolled_back")
    _expect(action["error_code"], "DEADLINE_EXCEEDED", "the reason")
    fired_ms = _lifetime_ms(client, action["action_id"])
    return Told("timed out, rolled back", fired_ms, 505, "exactly 500 ms (at most 5 late)")


def _recoverable(client: Client, _memory: dict[str, Any]) -> Told:
    action = _act(client, "s-recoverable", "demo.fail", {"recoverable": True}, "rolled_back")
    proof = _receipt_of(client, action["action_id"], "action_rolled_back")
    took_ms = proof["rollback_duration_ms"]
    return Told("failed, rolled back", took_ms, 100, "rollback < 100 ms")


def _unrecoverable(client: Client, _memory: dict[str, Any]) -> Told:
    _act(client, "s-unrecoverable", "demo.fail", {"recoverable": False}, "failed")
    client.receipts(ACCOUNT, operation="alert_raised")[0]
    return Told("failed, alert raised")


def _same_webhook(client: Client, memory: dict[str, Any]) -> Told:
    again = checked(client.post_webhook(_WEBHOOK)).json()
    _expect(again, memory["receipt"], "the receipt of the redelivered webhook")
    return Told("200, the same receipt")


def _same_signal(client: Client, memory: dict[str, Any]) -> Told:
    answer = checked(client.post_signal(ACCOUNT, _signal("s-succeed", "demo.succeed", {})))
    _expect(answer.json()["action_id"], memory["action_id"], "the redelivered signal's action")
    proofs = client.receipts(ACCOUNT, operation="action_complete")
    _expect(len(proofs), 1, "completed actions")
    return Told("202, the same action, done once")


def _bad_signature(client: Client, _memory: dict[str, Any]) -> Told:
    answer = client.post_webhook({**_WEBHOOK, "event_id": "demo-event-2"}, secret="not-the-secret")  # noqa: S106
    _expect(answer.status_code, 400, "a webhook with a bad signature")
    _await(lambda: client.receipts(SYSTEM_ACCOUNT, operation="webhook_rejected"))
    return Told("400, counted and receipted")


def _no_policy(client: Client, _memory: dict[str, Any]) -> Told:
    event = {**_WEBHOOK, "event_id": "demo-event-3", "sku_id": "unknown-sku"}
    answer = client.post_webhook(event)
    _expect(answer.status_code, 422, "a SKU with no policy")
    _expect(answer.json()["receipt"]["operation"], "entitlement_failed", "its receipt")
    return Told("422, entitlement_failed")


SCENES = (
    Scene("A customer subscribes", _subscribe),
    Scene("A signal succeeds", _first_signal),
    Scene("A signal times out", _timeout),
    Scene("A signal fails recoverably", _recoverable),
    Scene("A signal fails unrecoverably", _unrecoverable),
    Scene("The same webhook again", _same_webhook),
    Scene("The same signal again", _same_signal),
    Scene("A webhook with a bad signature", _bad_signature),
    Scene("A SKU with no policy", _no_policy),
)


def _signal(signal_id: str, kind: str, payload: Mapping[str, Any]) -> dict[str, Any]:
    return {"signal_id": signal_id, "type": kind, "payload": payload}


def _act(
    client: Client, signal_id: str, kind: str, payload: Mapping[str, Any], ends: str
) -> dict[str, Any]:
    answer: httpx.Response = checked(client.post_signal(ACCOUNT, _signal(signal_id, kind, payload)))
    _expect(answer.status_code, 202, "a signal")
    action = client.wait_action(answer.headers["Location"])
    _expect(action["state"], ends, f"the action of {signal_id}")
    return action


def _receipt_of(client: Client, action_id: str, operation: str) -> dict[str, Any]:
    items = client.receipts(ACCOUNT, operation=operation)
    return next(i for i in items if i["action_id"] == action_id)


def _lifetime_ms(client: Client, action_id: str) -> float:
    """From the handler's start to its end, as the handler itself recorded them."""
    import json

    lines = map(json.loads, client.settings.demo_file.read_text().splitlines())
    at = {line["event"]: line["monotonic"] for line in lines if line["action_id"] == action_id}
    return float((at["end"] - at["start"]) * 1000)


def _await(look: Callable[[], object]) -> None:
    try:
        until(look, 15, 0.05)
    except TimeoutError:
        raise OutageError("not-seen", "what the story waits for did not come") from None
