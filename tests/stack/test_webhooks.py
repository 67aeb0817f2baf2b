"""The marketplace's door (D4-D7), from outside."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook

from tests.stack.conftest import Stack, created, held
from tests.support.waiting import until

PROBLEM = "application/problem+json"


def test_a_subscription_is_answered_with_its_receipt(stack: Stack) -> None:
    answer = stack.webhook(created("hook-new"))

    assert answer.status_code == 200
    receipt = answer.json()
    assert receipt["operation"] == "entitlement_active"
    assert receipt["region"] == "us-central1"
    assert receipt["quota"] == {"monthly_actions": 10000, "concurrent_actions": 20}
    assert stack.receipts("hook-new") == [receipt]
    assert (stack.state / "secrets" / "tenants" / "hook-new.key").exists()
    tenant = stack.read("/v1/tenants/hook-new")
    assert (tenant["state"], tenant["fsm_id"]) == ("stable", "governor-hook-new")
    run = stack.read(f"/v1/runs/{receipt['run_id']}")
    assert run["state"] == "complete"
    assert "body" not in run


def test_the_specs_own_payload_is_enough(stack: Stack) -> None:
    body = {"event_type": "entitlement.created", "account_id": "hook-small", "sku_id": "demo-sku"}

    receipt = stack.webhook(body).json()

    assert receipt["plan_type"] == "starter"
    assert receipt["event_id"].startswith("sha256-")


def test_standard_webhooks_headers_are_accepted(stack: Stack) -> None:
    body = json.dumps(created("hook-standard"))
    at = datetime.fromtimestamp(int(time.time()), UTC)
    signature = Webhook(stack.secrets.webhook_secrets()[0]).sign("m-1", at, body)

    with stack.http() as http:
        answer = http.post(
            "/v1/webhooks/marketplace",
            content=body,
            headers={
                "webhook-id": "m-1",
                "webhook-timestamp": str(int(at.timestamp())),
                "webhook-signature": signature,
            },
        )

    assert answer.status_code == 200


def test_a_redelivery_gets_the_same_receipt_and_another_body_a_conflict(stack: Stack) -> None:
    first = stack.webhook(created("hook-again"))

    assert stack.webhook(created("hook-again")).json() == first.json()
    other = stack.webhook(created("hook-again", plan_type="starter"))
    assert (other.status_code, other.headers["content-type"]) == (409, PROBLEM)
    assert len(stack.receipts("hook-again")) == 1


def test_fifty_deliveries_at_once_are_one_governor_and_one_receipt(stack: Stack) -> None:
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(stack.webhook(created("hook-storm")).text))
        for _ in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 50
    assert len(set(answers)) == 1
    assert json.loads(answers[0])["operation"] == "entitlement_active"
    assert len(stack.receipts("hook-storm")) == 1


def test_different_events_of_one_account_at_once_take_turns(stack: Stack) -> None:
    events = [created("hook-turns", event_id=f"turn-{n}") for n in range(6)]
    states: list[int] = []
    threads = [
        threading.Thread(target=lambda e=e: states.append(stack.webhook(e).status_code))  # type: ignore[misc]
        for e in events
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert states == [200] * 6
    assert len(stack.receipts("hook-turns")) >= 1


def test_a_rotated_secret_is_taken_up_without_a_restart(stack: Stack) -> None:
    path = stack.state / "secrets" / "webhook.key"
    before = path.read_text()
    try:
        path.write_text("the newest secret\n" + before)
        # pragma: allowlist nextline secret
        assert stack.webhook(created("hook-rotated"), secret="the newest secret").status_code == 200
        assert stack.webhook(created("hook-old"), secret=before.strip()).status_code == 200
        path.write_text("the newest secret\n")
        assert stack.webhook(created("hook-x"), secret=before.strip()).status_code == 400
    finally:
        path.write_text(before)


def test_a_bad_signature_is_400_and_counted_in_a_receipt(stack: Stack) -> None:
    answer = stack.webhook(created("hook-bad"), secret="wrong")

    assert (answer.status_code, answer.headers["content-type"]) == (400, PROBLEM)
    assert answer.json()["type"] == "urn:ggen:problem:bad-signature"
    for secret in stack.secrets.webhook_secrets():
        assert secret not in answer.text
    until(
        lambda: (
            sum(
                r["by_reason"].get("bad-signature", 0)
                for r in stack.receipts("_system", operation="webhook_rejected")
            )
            >= 1
        )
    )


@pytest.mark.parametrize(
    ("body", "status", "names"),
    [
        (b"", 400, "JSON"),
        (b"[1", 400, "JSON"),
        (b"\xff\xfe", 400, "JSON"),
        (b"[]", 422, "body"),
        (b'{"account_id":"a","account_id":"b"}', 400, "twice"),
        (created("a/b"), 422, "account_id"),
        (created("_system"), 422, "account_id"),
        (created("a" * 129), 422, "account_id"),
        (created("a", event_type="x"), 422, "event_type"),
        (created("a", sku_id=".."), 422, "sku_id"),
        (created("a", plan_type=7), 422, "plan_type"),
        (created("a", event_id="é"), 422, "event_id"),
        (created("a", region="US!"), 422, "region"),
        (created("a", event_time="yesterday"), 422, "event_time"),
        (created("a", event_time="2026-01-01T00:00:00"), 422, "event_time"),
        (created("a", cancellation_reason="x" * 1025), 422, "cancellation_reason"),
        ({"event_type": "entitlement.created"}, 422, "account_id"),
        (created("a", event_time="0001-01-01T00:00:00+14:00"), 422, "event_time"),
        (created("a", event_time="0999-01-01T00:00:00Z"), 422, "event_time"),
        (json.dumps(created("a")).encode("utf-16"), 400, "JSON"),
        (b'{"x":"\xed\xa0\x80"}', 400, "JSON"),
    ],
    ids=range(21),
)
def test_a_valid_signature_on_an_invalid_body_lists_each_field(
    stack: Stack, body: dict[str, object] | bytes, status: int, names: str
) -> None:
    answer = stack.webhook(body)

    assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
    assert names in answer.text


def test_an_event_of_the_future_is_refused(stack: Stack) -> None:
    ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()

    answer = stack.webhook(created("hook-future", event_time=ahead))

    assert answer.status_code == 422
    assert "future" in answer.text


def test_a_body_beyond_the_limit_is_413_whatever_its_signature(stack: Stack) -> None:
    answer = stack.webhook(b" " * (64 * 1024 + 1))
    assert answer.status_code == 413

    with stack.http() as http:
        chunks = (b"x" * 1024 for _ in range(100))
        assert http.post("/v1/webhooks/marketplace", content=chunks).status_code == 413


def test_an_unknown_sku_or_plan_is_refused_for_good_with_a_receipt(stack: Stack) -> None:
    for account, change in (("hook-sku", {"sku_id": "nope"}), ("hook-plan", {"plan_type": "nope"})):
        answer = stack.webhook(created(account, **change))

        assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
        receipt = answer.json()["receipt"]
        assert receipt["operation"] == "entitlement_failed"
        assert stack.webhook(created(account, **change)).json()["receipt"] == receipt
        assert stack.receipts(account) == [receipt]
        assert not (stack.state / "secrets" / "tenants" / f"{account}.key").exists()


def test_an_event_that_no_marketplace_knows_is_refused(stack: Stack) -> None:
    answer = stack.webhook(created("hook-unknown", event_type="entitlement.exploded"))

    assert answer.status_code == 422
    assert "event_type" in answer.text


def test_a_run_that_takes_longer_is_202_and_ends_all_the_same(stack: Stack) -> None:
    with held(stack):
        answer = stack.webhook(created("hook-slow"))

    assert answer.status_code == 202, answer.text
    until(lambda: stack.read(answer.headers["Location"])["state"] == "complete")
    assert stack.webhook(created("hook-slow")).json() == stack.receipts("hook-slow")[0]


def test_a_spoilt_secret_is_our_fault_and_its_place_is_told_to_nobody(stack: Stack) -> None:
    path = stack.state / "secrets" / "webhook.key"
    before = path.read_text()
    try:
        for spoilt in ("", "whsec_\n"):
            path.write_text(spoilt)
            answer = stack.webhook(created("hook-spoilt"), secret="x")
            assert answer.status_code == 503
            assert str(stack.state) not in answer.text
    finally:
        path.write_text(before)
    assert stack.webhook(created("hook-spoilt")).status_code == 200


def test_a_body_that_was_too_large_is_counted_like_every_refusal(stack: Stack) -> None:
    stack.webhook(b" " * 70_000)

    until(
        lambda: any(
            "body-too-large" in r["by_reason"]
            for r in stack.receipts("_system", operation="webhook_rejected")
        )
    )
