"""Is this delivery authentic and fresh? Over the raw body, in constant time (D4)."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from governor.errors import InputError

STANDARD = ("webhook-id", "webhook-timestamp", "webhook-signature")
ENTITLEMENT = "x-entitlement-signature"
TENANT = "x-signature"
_MAX_SIGNATURE_CHARS = 4096


def check_webhook(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> None:
    """Accept a body signed with any active secret, in either form.

    Args:
        headers: lower-case names.
        body: the raw body.
        secrets: active secrets. ``sha256=`` signatures use a line's bytes as they stand; Standard
            Webhooks (300 s window) decodes the base64 after ``whsec_``.

    Raises:
        InputError: ``missing-signature`` or ``bad-signature``; says nothing of what would fit.
    """
    if any(len(headers.get(name, "")) > _MAX_SIGNATURE_CHARS for name in (*STANDARD, ENTITLEMENT)):
        raise InputError("bad-signature", "the signature header is too long")
    given = headers.get(ENTITLEMENT)
    is_standard = all(name in headers for name in STANDARD)
    if given is None and not is_standard:
        raise InputError(
            "missing-signature",
            "sign the body: Standard Webhooks headers, or X-Entitlement-Signature: sha256=<hex>",
        )
    # Every secret is tried, whichever fits, so that time says nothing of their order.
    fits = [given is not None and _is_hmac(given, body, secret.encode()) for secret in secrets]
    if is_standard:
        fits += [_is_standard(headers, body, s) for s in secrets if s.startswith("whsec_")]
    if not any(fits):
        raise InputError("bad-signature", "no active secret fits the signature of this body")


def check_signal(headers: Mapping[str, str], body: bytes, key: str) -> None:
    """Accept a body signed with the tenant's own key: ``X-Signature: sha256=<hex>``.

    Raises:
        InputError: ``missing-signature`` or ``bad-signature``.
    """
    given = headers.get(TENANT)
    if given is None:
        raise InputError(
            "missing-signature",
            "sign the raw body with the tenant's key: X-Signature: sha256=<hex>",
        )
    if not _is_hmac(given, body, key.encode()):
        raise InputError(
            "bad-signature", "the tenant's key does not fit the signature of this body"
        )


def check_policy(headers: Mapping[str, str], body: bytes, secrets: Sequence[str]) -> None:
    """Accept a policy signed with any active secret: ``X-Signature``, or Standard Webhooks.

    Raises:
        InputError: ``missing-signature`` or ``bad-signature``.
    """
    known = {name: headers[name] for name in STANDARD if name in headers}
    if TENANT in headers:
        known[ENTITLEMENT] = headers[TENANT]
    elif len(known) < len(STANDARD):
        raise InputError(
            "missing-signature",
            "sign the body: Standard Webhooks headers, or X-Signature: sha256=<hex>",
        )
    check_webhook(known, body, secrets)


def is_token(header: str | None, token: str) -> bool:
    """Whether an Authorization header carries this bearer token."""
    scheme, _, given = (header or "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        given.strip().encode(), token.encode()
    )


def is_password(header: str | None, password: str) -> bool:
    """Whether an Authorization header carries this password, under any name (RFC 7617)."""
    scheme, _, given = (header or "").partition(" ")
    try:
        _, _, told = base64.b64decode(given.strip(), validate=True).partition(b":")
    except ValueError:
        return False
    return scheme.lower() == "basic" and hmac.compare_digest(told, password.encode())


def sign(body: bytes, key: str) -> str:
    """What ``X-Signature`` and ``X-Entitlement-Signature`` hold."""
    return "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


def _is_hmac(given: str, body: bytes, key: bytes) -> bool:
    expected = "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(given.strip().lower().encode(), expected.encode())


def _is_standard(headers: Mapping[str, str], body: bytes, secret: str) -> bool:
    try:
        Webhook(secret).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True
