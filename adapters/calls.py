"""Calls of actions by HTTP: pooled connections to addresses that are checked as they are opened.

The address that was checked is the one connected to: a name that leads elsewhere a moment later
changes nothing. Certificates are still those of the name.
"""

import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import certifi
import httpcore

from governor.errors import ActionError, InputError, UnrecoverableError
from ports.calls import Answer

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_CONNECTIONS = 4
_KEPT_FOR_S = 3.0
"""How long an idle connection is kept: less than servers do, which close them without a word."""

_GRACE_S = 0.05
"""How much later than the deadline a call gives up by itself: the deadline comes first."""

_NAMES_AT_ONCE = 4
"""A name that no server answers for keeps a thread for long; others must not wait for it."""

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
        except (
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.TimeoutException,
            OSError,
        ) as error:
            detail = f"no answer: {type(error).__name__}: {error}"
            raise ActionError("CALL_FAILED", detail) from error

    def close(self) -> None:
        for name in ("_encrypted", "_plain"):
            if pool := self.__dict__.pop(name, None):
                pool.close()

    @cached_property
    def _encrypted(self) -> httpcore.ConnectionPool:
        return self._pool(lambda address: is_public(address) or self._is_allowed(address))

    @cached_property
    def _plain(self) -> httpcore.ConnectionPool:
        """Without encryption only to where the operator allows it."""
        return self._pool(self._is_allowed)

    def _pool(self, may_reach: Callable[[Address], bool]) -> httpcore.ConnectionPool:
        cafile = None if os.environ.get("SSL_CERT_FILE") else certifi.where()
        return httpcore.ConnectionPool(
            ssl_context=ssl.create_default_context(cafile=cafile),
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_KEPT_FOR_S,
            network_backend=_Guarded(may_reach),
        )

    def _is_allowed(self, address: Address) -> bool:
        return any(address in network for network in self._allowed)


class _Guarded(httpcore.SyncBackend):
    """Opens connections to addresses that may be reached, and to no other."""

    def __init__(self, may_reach: Callable[[Address], bool]) -> None:
        self._may_reach = may_reach
        self._resolver = ThreadPoolExecutor(_NAMES_AT_ONCE, "names")
        self._asking = 0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        found = self._addresses(host, port, timeout)
        refused = [str(address) for address in found if not self._may_reach(address)]
        if refused:
            raise UnrecoverableError(
                "ADDRESS_REFUSED",
                f"{host} is at {', '.join(refused)}, which actions may not reach; nothing was "
                "sent. An operator may allow a network: GGEN_ACTION_NETWORKS",
            )
        for address in found[:-1]:
            try:
                return super().connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except httpcore.ConnectError:
                continue
        return super().connect_tcp(str(found[-1]), port, timeout, local_address, socket_options)

    def _addresses(self, host: str, port: int, timeout: float | None) -> list[Address]:
        """A name's addresses, by a thread: no alarm interrupts the system's resolver."""
        if self._asking >= _NAMES_AT_ONCE:
            raise httpcore.ConnectError("too many names wait to be resolved")
        asked: Future[list[Address]] = self._resolver.submit(_resolve, host, port)
        self._asking += 1
        asked.add_done_callback(self._answered)
        try:
            return asked.result(timeout)
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"the name {host} was not resolved in time") from None
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"the name {host} is not known: {error}") from error
        finally:
            asked.cancel()

    def _answered(self, _asked: object) -> None:
        self._asking -= 1


def _resolve(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    texts = (str(each[4][0]).partition("%")[0] for each in found)
    return list(dict.fromkeys(ipaddress.ip_address(text) for text in texts))


def _read(status: int, pieces: Iterable[bytes], most_bytes: int) -> Answer:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > most_bytes:
            return Answer(status, bytes(body[:most_bytes]), is_cut=True)
    return Answer(status, bytes(body))
