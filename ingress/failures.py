"""Limits on failures: of addresses that do not authenticate, of tenants with refused signals.

Only failures count. An address's failures alone are refused: a signed request is served whatever
else comes from there, since a proxy, or a marketplace, shares one address among many. A tenant has
signed what it is refused for, so its signals wait until it has failed less.
"""

import asyncio

from fastapi import Request
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from governor.errors import DeniedError, GovernorError, OutageError
from ports.system import Clock

_MOST = RateLimitItemPerSecond(50, 10)
"""Failures of one address in ten seconds before they are refused without a reason."""

_PAUSE_S = 0.5
"""How long a refusal of such an address takes."""

_MOST_OF_TENANT = RateLimitItemPerSecond(200, 10)
"""Signed signals of one tenant that are refused in ten seconds before none is looked at."""


class Failures:
    """The failures of each address and tenant, in this process."""

    def __init__(self, trusted_proxies: int, clock: Clock) -> None:
        self._clock = clock
        self._storage = MemoryStorage()
        self._limiter = MovingWindowRateLimiter(self._storage)
        self._latest = clock.now()
        self._proxies = trusted_proxies

    def address_of(self, request: Request) -> str:
        """Whose request it is: the peer's, or what the trusted proxies in front say it is."""
        peer = request.client.host if request.client else ""
        if not self._proxies:
            return peer
        named = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        told = [each.strip() for each in named if each.strip()]
        return told[-self._proxies] if len(told) >= self._proxies else peer

    async def told(self, request: Request, error: GovernorError) -> GovernorError:
        """What a failure is answered with: itself, or, after too many, 429 and not at once.

        The pause keeps 64 connections that fail as fast as they are answered from taking the
        processor from requests that are signed.
        """
        address = self.address_of(request)
        self._forget_a_future()
        if self._limiter.hit(_MOST, address):
            return error
        await asyncio.sleep(_PAUSE_S)
        return DeniedError(
            "too-many-failures",
            "too many requests from this address failed to authenticate; correct the key, and wait",
            _MOST.get_expiry(),
        )

    def check_tenant(self, account_id: str) -> None:
        """Raise DeniedError ``tenant-fails-too-often`` (429) where a tenant's signals must wait."""
        self._forget_a_future()
        if not self._limiter.test(_MOST_OF_TENANT, "tenant", account_id):
            raise DeniedError(
                "tenant-fails-too-often",
                "too many signals of this tenant were refused for what "
                "they say; none is looked at for now. Correct their sender, then send them again",
                _MOST_OF_TENANT.get_expiry(),
            )

    def note_tenant(self, account_id: str, error: GovernorError) -> None:
        """Count a signed signal that was refused for what it says, not for when it came."""
        if not isinstance(error, OutageError) and not error.retry_after_s:
            self._limiter.hit(_MOST_OF_TENANT, "tenant", account_id)

    def _forget_a_future(self) -> None:
        """Begin anew where the clock was set back: nobody waits until it has caught up."""
        now = self._clock.now()
        if now < self._latest:
            self._storage.reset()
        self._latest = now
