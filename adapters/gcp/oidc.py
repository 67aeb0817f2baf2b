"""Pub/Sub's pushes, known by their OIDC token: signature, issuer, audience, e-mail, time.

Google's verifier checks neither the e-mail nor, without an audience, the audience, and fetches the
certificates on every call. Here they are kept for as long as their reply says, at most an hour,
fetched in bounded time and size, and used on while they cannot be fetched.
https://docs.cloud.google.com/pubsub/docs/authenticate-push-subscriptions
"""

import hmac
import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import httpx
from google.auth import exceptions, jwt

from adapters.pushers import unauthorized
from governor.errors import OutageError

_LOG = logging.getLogger("ggen.push")
GOOGLE_CERTS = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_MAX_TOKEN_CHARS, _MAX_CERTS_BYTES = 8192, 65_536
_FETCH_S, _SKEW_S = 3.0, 10
_LONGEST_S, _SHORTEST_S = 3600.0, 60.0
_MALFORMED = (ValueError, TypeError, AttributeError, RecursionError)
"""What google-auth fails with at a token whose parts are not what it takes them for."""

_MAX_AGE = re.compile(r"max-age=(\d{1,9})")


class OidcPushers:
    """See ``ports.pushers.Pushers`` for what it promises."""

    def __init__(self, audience: str, service_account: str, certs_url: str = GOOGLE_CERTS) -> None:
        self._audience = audience
        self._service_account = service_account
        self._certs = _Certs(certs_url)

    def check(self, authorization: str | None) -> None:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_CHARS:
            raise unauthorized()
        claims = self._claims(token)
        email = str(claims.get("email", ""))
        is_ours = hmac.compare_digest(email.encode(), self._service_account.encode())
        if not (claims.get("iss") in ISSUERS and is_ours and claims.get("email_verified") is True):
            raise unauthorized()

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            key_id = jwt.decode_header(token).get("kid")
            certs = self._certs.including(str(key_id))
            claims: Mapping[str, Any] = jwt.decode(
                token, certs=certs, audience=self._audience, clock_skew_in_seconds=_SKEW_S
            )
        except OutageError:
            raise
        except (exceptions.GoogleAuthError, *_MALFORMED) as error:
            _LOG.info("a push was refused: %s", type(error).__name__)
            raise unauthorized() from error
        return claims


class _Certs:
    """Google's public certificates by key id."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._certs: dict[str, str] = {}
        self._fresh_until = self._asked_at = float("-inf")

    def including(self, key_id: str) -> dict[str, str]:
        """The certificates. A key nobody has heard of has them fetched anew, once a minute at most.

        Raises:
            OutageError: there are none, and none can be fetched.
        """
        with self._lock:
            now = time.monotonic()
            is_due = now >= self._fresh_until or key_id not in self._certs
            if is_due and now >= self._asked_at + (_SHORTEST_S if self._certs else 1):
                self._fetch(now)
                self._asked_at = time.monotonic()  # who waited meanwhile does not ask again
            if not self._certs:
                raise OutageError(
                    "certificates-unavailable",
                    "Google's certificates cannot be fetched; the push is refused, to come again",
                    retry_after_s=5,
                )
            return self._certs

    def _fetch(self, now: float) -> None:
        try:
            with httpx.stream("GET", self._url, timeout=_FETCH_S) as answer:
                answer.raise_for_status()
                text = b""
                for chunk in answer.iter_bytes():
                    text += chunk
                    if len(text) > _MAX_CERTS_BYTES or time.monotonic() > now + 2 * _FETCH_S:
                        raise ValueError("too large or too slow")
            certs = json.loads(text)
            if not certs or not all(isinstance(x, str) for x in [*certs, *certs.values()]):
                raise ValueError("no certificates")
        except (httpx.HTTPError, ValueError, AttributeError) as error:
            _LOG.warning("certificates not fetched, the former ones stand: %s", error)
            return
        told = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        lifetime_s = float(told[1]) if told else _LONGEST_S
        self._certs, self._fresh_until = certs, now + min(lifetime_s, _LONGEST_S)
