import base64
import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from standardwebhooks.webhooks import Webhook

from governor.errors import InputError
from ingress.signature import check_signal, check_webhook, is_password, is_token, sign

BODY = b'{"event_type":"entitlement.created"}'
OLD, NEW = ("whsec_" + base64.b64encode(bytes([n]) * 32).decode() for n in (1, 2))


def _standard(secret: str, body: bytes = BODY, age_s: int = 0) -> dict[str, str]:
    at = int(time.time()) - age_s
    signature = Webhook(secret).sign("msg-1", datetime.fromtimestamp(at, UTC), body.decode())
    return {
        "webhook-id": "msg-1",
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_either_active_secret_is_accepted_in_either_form(secret: str) -> None:
    check_webhook(_standard(secret), BODY, [NEW, OLD])
    check_webhook({"x-entitlement-signature": sign(BODY, secret)}, BODY, [NEW, OLD])


def test_a_plain_text_secret_serves_the_specs_own_form() -> None:
    check_webhook({"x-entitlement-signature": sign(BODY, "plain words")}, BODY, ["plain words"])


@pytest.mark.parametrize(
    "headers",
    [
        lambda: {"x-entitlement-signature": sign(BODY + b" ", NEW)},
        lambda: {"x-entitlement-signature": sign(BODY, "other")},
        lambda: {"x-entitlement-signature": "sha256="},
        lambda: {"x-entitlement-signature": "é"},
        lambda: {"x-entitlement-signature": "x" * 10_000},
        lambda: _standard(NEW, age_s=400),
        lambda: _standard(NEW, age_s=-400),
        lambda: {**_standard(NEW), "webhook-id": "msg-2"},
        lambda: {**_standard(NEW), "webhook-signature": "v1,!!!"},
        lambda: {**_standard(NEW), "webhook-signature": "nonsense"},
        lambda: {**_standard(NEW), "webhook-timestamp": "nan"},
        lambda: _standard("whsec_" + base64.b64encode(b"z" * 32).decode()),
    ],
    ids=range(12),
)
def test_anything_else_is_a_bad_signature(headers: Callable[[], dict[str, str]]) -> None:
    with pytest.raises(InputError) as refused:
        check_webhook(headers(), BODY, [NEW, OLD])

    assert refused.value.code == "bad-signature"
    assert NEW not in refused.value.detail


def test_a_body_that_is_no_text_is_a_bad_signature_in_the_standard_form() -> None:
    with pytest.raises(InputError):
        check_webhook(_standard(NEW), b"\xff", [NEW])


def test_no_signature_at_all_is_told_apart() -> None:
    with pytest.raises(InputError) as refused:
        check_webhook({}, BODY, [NEW])
    assert refused.value.code == "missing-signature"

    with pytest.raises(InputError) as refused:
        check_signal({}, BODY, "key")
    assert refused.value.code == "missing-signature"


def test_a_tenants_key_signs_its_signals() -> None:
    check_signal({"x-signature": sign(BODY, "key")}, BODY, "key")

    with pytest.raises(InputError):
        check_signal({"x-signature": sign(BODY, "key")}, BODY, "other key")


def test_a_bearer_token_is_compared_whole() -> None:
    assert is_token("Bearer abc", "abc")
    assert not is_token("Bearer abcd", "abc")
    assert not is_token(None, "abc")
    assert not is_token("Bearer é", "abc")


def test_a_password_is_taken_under_any_name_and_nothing_else_is() -> None:
    def basic(text: str) -> str:
        return "Basic " + base64.b64encode(text.encode()).decode()

    assert is_password(basic("monitoring:the-token"), "the-token")
    assert is_password(basic(":the-token"), "the-token")
    refused = [None, "", "Basic", "Basic ???", basic("the-token"), basic("a:b"), "Bearer the-token"]
    assert not any(is_password(each, "the-token") for each in refused)
