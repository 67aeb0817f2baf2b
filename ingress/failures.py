"""Who fails too often: an address whose requests keep failing to authenticate.

Only failures count, and only failures are refused: a signed request is served whatever else comes
from its address, since a proxy, or a marketplace, shares one among many.
"""

from fastapi import Request
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from governor.errors import DeniedError, GovernorError

_MOST = RateLimitItemPerSecond(50, 10)
"""Failures of one address in ten seconds before they are refused without a reason."""


class Failures:
    """The failures of each address, in this process."""

    def __init__(self, trusted_proxies: int) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._proxies = trusted_proxies

    def address_of(self, request: Request) -> str:
        """Whose request it is: the peer's, or what the trusted proxies in front say it is."""
        peer = request.client.host if request.client else ""
        if not self._proxies:
            return peer
        named = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        told = [each.strip() for each in named if each.strip()]
        return told[-self._proxies] if len(told) >= self._proxies else peer

    def told(self, request: Request, error: GovernorError) -> GovernorError:
        """What a failure is answered with: itself, or, after too many, 429."""
        address = self.address_of(request)
        if self._limiter.hit(_MOST, address):
            return error
        return DeniedError(
            "too-many-failures", "too many requests from this address failed to authenticate; "
            "correct the key, and wait", _MOST.get_expiry()
        )  # fmt: skip
