"""Pub/Sub's pushes, known by their OIDC token: signature, issuer, audience, e-mail, time.

PyJWT verifies the token and keeps Google's public keys. Here they are fetched in bounded time, and
used further while no others can be fetched.
https://docs.cloud.google.com/pubsub/docs/authenticate-push-subscriptions
"""

import hmac
import logging
import time
from collections.abc import Mapping
from typing import Any

import jwt

from adapters.pushers import unauthorized
from governor.errors import OutageError

_LOG = logging.getLogger("ggen.push")
GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"
ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_MAX_TOKEN_CHARS = 8192
_FETCH_S, _SKEW_S = 3.0, 10
_KEPT_S, _UNKNOWN_KEY_EVERY_S, _FAILED_EVERY_S = 3600.0, 60.0, 1.0
_MALFORMED = (ValueError, TypeError, AttributeError, RecursionError)
"""What PyJWT fails with at a token whose parts are not what it takes them for."""


class OidcPushers:
    """See ``ports.pushers.Pushers`` for what it promises."""

    def __init__(self, audience: str, service_account: str, keys_url: str = GOOGLE_KEYS) -> None:
        self._audience = audience
        self._service_account = service_account
        self._keys = _Keys(
            keys_url, lifespan=_KEPT_S, timeout=_FETCH_S, cooldown_duration=_UNKNOWN_KEY_EVERY_S
        )

    def check(self, authorization: str | None) -> None:
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not 0 < len(token) <= _MAX_TOKEN_CHARS:
            raise unauthorized()
        claims = self._claims(token)
        email = str(claims.get("email", ""))
        is_ours = hmac.compare_digest(email.encode(), self._service_account.encode())
        if not (is_ours and claims.get("email_verified") is True):
            raise unauthorized()

    def _claims(self, token: str) -> Mapping[str, Any]:
        try:
            claims: Mapping[str, Any] = jwt.decode(
                token,
                self._keys.get_signing_key_from_jwt(token),
                algorithms=["RS256"],
                audience=self._audience,
                issuer=ISSUERS,
                leeway=_SKEW_S,
                options={"require": ["exp", "iat", "iss", "aud"]},
            )
        except OutageError:
            raise
        except (jwt.PyJWTError, *_MALFORMED) as error:
            _LOG.info("a push was refused: %s", type(error).__name__)
            raise unauthorized() from error
        return claims


class _Keys(jwt.PyJWKClient):
    """Google's public keys; those fetched last are used further while none can be fetched."""

    _failed_at = float("-inf")

    def get_jwk_set(self, refresh: bool = False) -> jwt.PyJWKSet:
        """The keys; after a fetch that failed, those of before for a minute.

        Raises:
            OutageError: there are none, and none can be fetched.
        """
        last = self.jwk_set_cache.jwk_set_with_timestamp if self.jwk_set_cache else None
        rests_for_s = _UNKNOWN_KEY_EVERY_S if last else _FAILED_EVERY_S
        if time.monotonic() > self._failed_at + rests_for_s:
            try:
                return super().get_jwk_set(refresh)
            except (jwt.PyJWTError, ValueError, OSError) as error:
                _LOG.warning("Google's public keys were not fetched: %s", error)
                self._failed_at = time.monotonic()  # threads that wait now do not ask again
        if last is None:
            raise OutageError(
                "certificates-unavailable",
                "Google's public keys cannot be fetched; the push is refused, and comes again",
                retry_after_s=5,
            )
        return last.get_jwk_set()
