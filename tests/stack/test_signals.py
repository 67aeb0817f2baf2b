"""The tenants' door (D8) and what comes of a signal, from outside."""

import base64
import json
from typing import Any

import pytest

from ingress.signature import sign
from tests.stack.conftest import Stack, created
from tests.support.waiting import until

pytestmark = pytest.mark.alone

FINAL = ("complete", "failed", "rolled_back")


@pytest.fixture(scope="module")
def account(stack: Stack) -> str:
    stack.subscribe("sig")
    return "sig"


def _signal(signal_id: str, kind: str = "demo.succeed", **payload: Any) -> dict[str, Any]:
    return {"signal_id": signal_id, "type": kind, "payload": payload}


def _ended(stack: Stack, location: str, *states: str) -> dict[str, Any]:
    return until(lambda: a if (a := stack.read(location))["state"] in (states or FINAL) else None)


def _operations(stack: Stack, account: str, action_id: str) -> list[str]:
    items = reversed(stack.receipts(account, limit=1000))
    return [r["operation"] for r in items if r.get("action_id") == action_id]


def _seen(stack: Stack, action_id: str) -> list[str]:
    lines = (stack.state / "demo-actions.jsonl").read_text().splitlines()
    return [e["event"] for e in map(json.loads, lines) if e["action_id"] == action_id]


@pytest.mark.parametrize(
    ("kind", "payload", "state", "operations", "seen"),
    [
        ("demo.succeed", {}, "complete", ["action_complete"], ["start", "end"]),
        ("demo.sleep", {"seconds": 0.01}, "complete", ["action_complete"], ["start", "end"]),
        (
            "demo.sleep",
            {"seconds": 9},
            "rolled_back",
            ["action_timeout", "action_rolled_back"],
            ["start", "end", "rolled_back"],
        ),
        (
            "demo.fail",
            {"recoverable": True},
            "rolled_back",
            ["action_failed", "action_rolled_back"],
            ["start", "end", "rolled_back"],
        ),
        ("demo.fail", {"recoverable": False}, "failed", ["action_failed"], ["start", "end"]),
        (
            "demo.swallow",
            {},
            "rolled_back",
            ["action_timeout", "action_rolled_back"],
            ["start", "rolled_back"],
        ),
        (
            "demo.spin",
            {},
            "rolled_back",
            ["action_timeout", "action_rolled_back"],
            ["start", "rolled_back"],
        ),
        (
            "demo.rollback_fails",
            {"times": 1},
            "rolled_back",
            ["action_failed", "rollback_failed", "action_rolled_back"],
            ["start", "end", "rolled_back"],
        ),
    ],
    ids=["succeed", "sleep", "timeout", "recoverable", "unrecoverable", "swallow", "spin", "undo"],
)
def test_each_demo_action_ends_as_it_must(
    stack: Stack,
    account: str,
    kind: str,
    payload: dict[str, Any],
    state: str,
    operations: list[str],
    seen: list[str],
) -> None:
    answer = stack.signal(account, _signal(f"{kind}-{payload}", kind, **payload))

    assert answer.status_code == 202
    assert set(answer.json()) == {"action_id", "state"}
    action = _ended(stack, answer.headers["Location"], state)
    assert _operations(stack, account, action["action_id"]) == operations
    assert _seen(stack, action["action_id"]) == seen


def test_the_deadline_is_never_early_and_hardly_late(stack: Stack, account: str) -> None:
    answer = stack.signal(account, _signal("exact", "demo.sleep", seconds=9))
    action = _ended(stack, answer.headers["Location"])

    assert 500 <= action["run_ms"] < 600  # its exactness is measured by bench, not here


def test_a_governor_is_stable_again_after_every_end(stack: Stack, account: str) -> None:
    tenant = until(
        lambda: t if (t := stack.read(f"/v1/tenants/{account}"))["state"] == "stable" else None
    )

    assert tenant["in_flight_actions"] == 0


def test_the_same_signal_again_gets_the_same_answer_and_is_done_once(
    stack: Stack, account: str
) -> None:
    first = stack.signal(account, _signal("twice"))
    _ended(stack, first.headers["Location"])
    used = stack.read(f"/v1/tenants/{account}")["entitlements"][0]["actions_this_month"]

    again = stack.signal(account, _signal("twice"))

    assert (again.status_code, again.json()) == (202, first.json())
    assert stack.signal(account, _signal("twice", more=1)).status_code == 409
    assert _seen(stack, first.json()["action_id"]) == ["start", "end"]
    after = stack.read(f"/v1/tenants/{account}")["entitlements"][0]["actions_this_month"]
    assert after == used


@pytest.mark.parametrize(
    ("signal", "status"),
    [
        (_signal("n1", "demo.unknown"), 403),
        ({**_signal("n2"), "sku_id": "other"}, 403),
        (b"{", 400),
        (_signal(""), 422),
        (_signal("é"), 422),
        (_signal("x" * 257), 422),
        ({"signal_id": "n3"}, 422),
        ({**_signal("n4"), "surprise": 1}, 422),
        ({**_signal("n5"), "payload": []}, 422),
        (
            b'{"signal_id":"n6","type":"demo.succeed","payload":{"a":'
            + b"[" * 40
            + b"]" * 40
            + b"}}",
            422,
        ),
        (b'{"signal_id":"n7","type":"demo.succeed","payload":{"a":9007199254740993}}', 400),
        (b'{"signal_id":"n8","type":"demo.succeed","payload":{"a":"\\ud800"}}', 422),
        (b" " * (64 * 1024 + 1), 413),
    ],
    ids=range(13),
)
def test_what_cannot_be_accepted_is_refused_by_name(
    stack: Stack, account: str, signal: dict[str, Any] | bytes, status: int
) -> None:
    answer = stack.signal(account, signal)

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_signal_signed_with_anothers_key_is_refused(stack: Stack, account: str) -> None:
    stack.subscribe("sig-other")
    body = json.dumps(_signal("stolen")).encode()
    key = (stack.state / "secrets" / "tenants" / "sig-other.key").read_text().strip()

    with stack.http() as http:
        answer = http.post(
            f"/v1/tenants/{account}/signals", content=body, headers={"X-Signature": sign(body, key)}
        )
        unsigned = http.post(f"/v1/tenants/{account}/signals", content=body)

    assert (answer.status_code, unsigned.status_code) == (400, 400)


def test_a_tenant_without_a_governor_is_unknown(stack: Stack) -> None:
    body = json.dumps(_signal("s")).encode()
    with stack.http() as http:
        answer = http.post(
            "/v1/tenants/nobody/signals",
            content=body,
            headers={"X-Signature": sign(body, stack.secrets.tenant_key("nobody"))},
        )

    assert answer.status_code == 404


def test_more_at_once_than_the_plan_allows_is_429_and_counted(stack: Stack) -> None:
    stack.subscribe("sig-starter", "starter")

    answers = [
        stack.signal("sig-starter", _signal(f"s{n}", "demo.sleep", seconds=0.4)) for n in range(12)
    ]

    refused = [a for a in answers if a.status_code == 429]
    assert refused
    assert {a.headers["Retry-After"] for a in refused} == {"1"}
    proofs = until(lambda: stack.receipts("sig-starter", operation="signals_refused"))
    until(
        lambda: (
            sum(
                r["by_reason"]["concurrency-exceeded"]
                for r in stack.receipts("sig-starter", operation="signals_refused")
            )
            == len(refused)
        )
    )
    assert proofs[0]["status"] == "refused"


def test_a_signal_put_on_the_topic_is_pushed_and_acted_on_once(stack: Stack, account: str) -> None:
    sent = stack.ggen(
        "send-signal", "--account-id", account, "--via", "topic", "--signal-id", "by-topic"
    )
    assert sent.returncode == 0, sent.stderr

    def completed() -> list[dict[str, Any]]:
        items = stack.receipts(account, operation="action_complete", limit=1000)
        from governor.paths import action_id

        return [i for i in items if i["action_id"] == action_id(account, "by-topic")]

    assert len(until(completed)) == 1


def _push(stack: Stack, message: bytes, *, subscription: str, token: str | None = None) -> Any:
    envelope = {
        "message": {
            "data": base64.b64encode(message).decode(),
            "messageId": f"m-{hash(message)}",
            "attributes": {"account_id": "somebody-else"},
        },
        "subscription": subscription,
    }
    bearer = token or stack.secrets.push_token()
    with stack.http() as http:
        return http.post(
            "/v1/pubsub/signals", json=envelope, headers={"Authorization": f"Bearer {bearer}"}
        )


def test_a_push_is_taken_from_the_subscriptions_own_pusher_alone(
    stack: Stack, account: str
) -> None:
    subscription = f"projects/p/subscriptions/tenants.{account}.signals"
    message = json.dumps(_signal("pushed")).encode()

    assert _push(stack, message, subscription=subscription, token="wrong").status_code == 401
    assert _push(stack, message, subscription=subscription).status_code == 204
    assert _push(stack, message, subscription=subscription).status_code == 204
    assert _push(stack, message, subscription="projects/p/subscriptions/x").status_code == 422


def test_an_alert_of_monitoring_needs_its_password_and_names_a_tenant(
    stack: Stack, account: str
) -> None:
    def told(password: str, **changes: Any) -> int:
        incident = {
            "incident_id": "0.opqiw61fsv7p",
            "state": "open",
            "resource": {"labels": {"subscription_id": f"tenants.{account}.signals"}},
            "url": "https://console.cloud.google.com/",
        }
        body = {"version": "1.2", "incident": {**incident, **changes}}
        with stack.http() as http:
            auth = ("monitoring", password)
            return http.post("/v1/alerts/monitoring", json=body, auth=auth).status_code

    password = stack.secrets.monitoring_token()
    other = {"labels": {"subscription_id": "tenants.no-such-account.signals"}}
    assert told("wrong") == 401
    assert told(password) == told(password) == told(password, state="closed") == 204
    assert told(password, incident_id="another", resource=other) == 404
    assert told(password, state="resolved") == 422


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"rubbish", "not-json"), (b'{"signal_id":"p","type":"demo.unknown"}', "not-permitted")],
)
def test_a_pushed_message_that_can_never_succeed_is_acknowledged_and_receipted(
    stack: Stack, account: str, message: bytes, code: str
) -> None:
    subscription = f"projects/p/subscriptions/tenants.{account}.signals"

    assert _push(stack, message, subscription=subscription).status_code == 200
    assert _push(stack, message, subscription=subscription).status_code == 200

    proofs = stack.receipts(account, operation="signal_dead_lettered")
    assert [p["error_code"] for p in proofs].count(code) == 1


def test_a_push_for_a_governor_that_is_not_there_yet_is_kept(stack: Stack) -> None:
    subscription = "projects/p/subscriptions/tenants.not-yet.signals"

    assert (
        _push(
            stack, b'{"signal_id":"p","type":"demo.succeed"}', subscription=subscription
        ).status_code
        == 404
    )


def test_a_signal_that_fits_two_entitlements_of_one_sku_must_name_one(stack: Stack) -> None:
    for number in (1, 2):
        bought = created("twice", event_id=f"twice-{number}", entitlement_id=f"order-{number}")
        assert stack.webhook(bought).status_code == 200

    assert stack.signal("twice", _signal("s-1")).status_code == 409
    named = {**_signal("s-1"), "entitlement_id": "order-2"}
    accepted = stack.signal("twice", named)
    assert accepted.status_code == 202
    assert _ended(stack, accepted.headers["Location"])["entitlement_id"] == "order-2"
    tenant = stack.read("/v1/tenants/twice")
    used = {e["entitlement_id"]: e["actions_this_month"] for e in tenant["entitlements"]}
    assert used == {"order-1": 0, "order-2": 1}
