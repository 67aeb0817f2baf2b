"""Connections in: each has a time for its header and its body, and there is room for so many.

uvicorn bounds neither the time nor the size of a header, nor the number of connections. When there
is no room, the connection that has waited longest without a request is closed. Silent connections
therefore keep no request out.
"""

import asyncio
import http
import resource
import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEADER_S, BODY_S = 10.0, 30.0
"""How long a request's header, and then its body, may take."""

_CLOSE_S = 5.0
"""How long what was said last may take to be read before a connection is cut."""

MAX_HEADER_BYTES = 32 * 1024
_SPARE_FILES = 128
"""Descriptors kept for everything but connections."""

_MOST = 4096


def most_connections() -> int:
    """How many connections there is room for, after raising this process's limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST + _SPARE_FILES
    if soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, raised), hard))
        soft = max(soft, raised)
    return max(16, min(_MOST, soft - _SPARE_FILES))


def open_door(config: uvicorn.Config) -> socket.socket:
    """The socket to listen at, or the end of the process, aloud.

    asyncio takes a socket that cannot be made for an address that is not there, and would serve
    without a door. It sends small answers at once only where it has made the socket itself; here
    the connections have that from their door. Else every second answer on a connection would wait
    40 ms for the client's kernel.
    """
    door = config.bind_socket()
    door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return door


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, bounded. Shared by all connections of this process: who waits."""

    most = _MOST
    waiting: "dict[BoundedProtocol, None]" = {}  # noqa: RUF012  # one process, one event loop
    _timer: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None
    _is_refused = False
    _is_in_header = True
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if need be in another's place."""
        super().connection_made(transport)
        if len(self.connections) > self.most:
            longest = next(iter(self.waiting), None)
            if longest is None:
                self._refuse(http.HTTPStatus.SERVICE_UNAVAILABLE)
                return
            longest.give_way()
        self.waiting[self] = None
        self._timer = self.loop.call_later(HEADER_S, self._refuse, http.HTTPStatus.REQUEST_TIMEOUT)

    def give_way(self) -> None:
        """Close at once: another connection needs the room."""
        self.waiting.pop(self, None)
        self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._stop_timer()
        if self._reader is not None:
            self._reader.cancel()
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed what came, unless its header is too long."""
        if self._is_refused:
            return
        if self._is_in_header:
            self._header_bytes += len(data)
            if self._timer is None:  # the next request of a connection that is kept
                self._timer = self.loop.call_later(
                    HEADER_S, self._refuse, http.HTTPStatus.REQUEST_TIMEOUT
                )
        super().data_received(data)
        if self._is_in_header and self._header_bytes > MAX_HEADER_BYTES:
            self._refuse(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """The header is whole: begin the request, unless it is too long."""
        self._stop_timer()
        self.waiting.pop(self, None)
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEADER_BYTES:
            self._refuse(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
            return
        self._is_in_header, self._header_bytes = False, 0
        self._timer = self.loop.call_later(BODY_S, self._refuse, http.HTTPStatus.REQUEST_TIMEOUT)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._is_refused:
            return
        self._stop_timer()
        self._is_in_header = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The connection waits for its next request."""
        super().on_response_complete()
        if not self.transport.is_closing() and self.timeout_keep_alive_task is not None:
            self.waiting[self] = None

    def pause_writing(self) -> None:
        """The peer reads nothing: it has as long for that as for its body."""
        super().pause_writing()
        if self._reader is None:
            self._reader = self.loop.call_later(BODY_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The peer reads again."""
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None
        super().resume_writing()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: http.HTTPStatus) -> None:
        """Say why, where nothing was said yet, and close."""
        self._stop_timer()
        self._is_refused = True
        self.waiting.pop(self, None)
        if self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle
        # While a request is carried out, its own answer must be the next thing that is said.
        is_idle = cycle is None or cycle.response_complete
        if is_idle or (cycle and not self._is_in_header and not cycle.response_started):
            text = f"{status.value} {status.phrase}\n".encode()
            self.transport.write(
                b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n"
                b"connection: close\r\n%b\r\n%b"
                % (
                    status.value,
                    status.phrase.encode(),
                    len(text),
                    b"retry-after: 2\r\n" if status is http.HTTPStatus.SERVICE_UNAVAILABLE else b"",
                    text,
                )
            )
            if cycle is not None:
                cycle.disconnected = True
                cycle.message_event.set()
        self.transport.close()
        if self._reader is None:
            self._reader = self.loop.call_later(_CLOSE_S, self.transport.abort)
