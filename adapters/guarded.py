"""Opens connections to addresses that may be reached, for the first call of ``adapters.calls``."""

import ipaddress
import os
import socket
import ssl
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import certifi
import httpcore

from governor.errors import UnrecoverableError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
FAULTS = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError)
"""How a call fails that has no answer."""

_NAMES_AT_ONCE = 4
"""A name that no server answers for keeps a thread for long; others must not wait for it."""


def pool(
    may_reach: Callable[[Address], bool], *, connections: int, kept_for_s: float
) -> httpcore.ConnectionPool:
    """Connections that are kept for a while, each to an address that may be reached."""
    cafile = None if os.environ.get("SSL_CERT_FILE") else certifi.where()
    return httpcore.ConnectionPool(
        ssl_context=ssl.create_default_context(cafile=cafile),
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=kept_for_s,
        network_backend=Guarded(may_reach),
    )


class Guarded(httpcore.SyncBackend):
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
