"""Calls of actions by HTTP: pooled connections to addresses that are checked as they are opened.

The address that was checked is the one connected to: a name that leads elsewhere a moment later
changes nothing. Certificates are still those of the name. What opens connections is imported by
the first call: most processes make none.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from governor.errors import ActionError, InputError
from ports.calls import Answer

if TYPE_CHECKING:
    from httpcore import ConnectionPool

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_CONNECTIONS = 4
_KEPT_FOR_S = 3.0
"""How long an idle connection is kept: less than servers do, which close them without a word."""

_GRACE_S = 0.05
"""How much later than the deadline a call gives up by itself: the deadline comes first."""

_REFUSED = [
    ipaddress.ip_network(each)
    for each in (
        "64:ff9b:1::/48",  # NAT64 of a network's own (RFC 8215)
        "::/96",  # IPv4-compatible, and the loopback
        "::ffff:0:0:0/96",  # IPv4-translated (RFC 7915)
        "fec0::/10",  # site-local
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "192.0.0.0/24",  # IETF's protocol assignments; Oracle's metadata
        "168.63.129.16/32",  # Azure's host
    )
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def networks(text: str) -> list[Network]:
    """The networks that an operator allows besides public addresses.

    Raises:
        InputError: one of them is none.
    """
    try:
        return [ipaddress.ip_network(each) for each in text.split()]
    except ValueError as error:
        raise InputError("bad-network", f"GGEN_ACTION_NETWORKS: {error}") from None


def is_public(address: Address) -> bool:
    """Whether an address is one of the internet at large; inside one, the address it stands for."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    is_refused = any(address in network for network in _REFUSED)
    return address.is_global and not address.is_multicast and not is_refused


class GuardedCalls:
    """See ``ports.calls.Calls`` for what it promises."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed

    def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        within_s: float,
        most_bytes: int,
    ) -> Answer:
        from adapters.guarded import FAULTS

        pool = self._encrypted if url.startswith("https://") else self._plain
        limits = dict.fromkeys(("connect", "read", "write", "pool"), within_s + _GRACE_S)
        try:
            with pool.stream(
                "POST",
                url,
                headers=list(headers.items()),
                content=body,
                extensions={"timeout": limits},
            ) as answer:
                return _read(answer.status, answer.iter_stream(), most_bytes)
        except FAULTS as error:
            detail = f"no answer: {type(error).__name__}: {error}"
            raise ActionError("CALL_FAILED", detail) from error

    def close(self) -> None:
        for name in ("_encrypted", "_plain"):
            if pool := self.__dict__.pop(name, None):
                pool.close()

    @cached_property
    def _encrypted(self) -> "ConnectionPool":
        return self._pool(lambda address: is_public(address) or self._is_allowed(address))

    @cached_property
    def _plain(self) -> "ConnectionPool":
        """Without encryption only to where the operator allows it."""
        return self._pool(self._is_allowed)

    def _pool(self, may_reach: Callable[[Address], bool]) -> "ConnectionPool":
        from adapters.guarded import pool

        return pool(may_reach, connections=_CONNECTIONS, kept_for_s=_KEPT_FOR_S)

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._allowed)


def _read(status: int, pieces: Iterable[bytes], most_bytes: int) -> Answer:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > most_bytes:
            return Answer(status, bytes(body[:most_bytes]), is_cut=True)
    return Answer(status, bytes(body))
