"""Connections that hold a door open: each is cut in time, on a real server and real sockets."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from adapters.local.system import free_ports
from ingress import connections
from ingress.connections import BoundedProtocol, open_door
from tests.support.waiting import until


async def _large(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    """Answers every request with a megabyte."""
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * (1 << 20)})


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[uvicorn.Server]:
    """A server whose times are short."""
    for name in ("HEADER_S", "BODY_S", "_CLOSE_S"):
        monkeypatch.setattr(connections, name, 0.3)
    (port,) = free_ports(1)
    config = uvicorn.Config(
        _large, port=port, http=BoundedProtocol, log_config=None, lifespan="off"
    )
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    until(lambda: running.started)
    yield running
    running.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nhost: x\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 64,
    ],
    ids=["silent", "half a header", "half a body", "reads nothing"],
)
def test_a_connection_that_stalls_is_cut(server: uvicorn.Server, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.config.port)) as client:
        until(lambda: server.server_state.connections)
        client.sendall(sent)

        until(lambda: not server.server_state.connections, 10)


def test_answers_are_sent_at_once() -> None:
    """Answers of a few hundred bytes: header and body are two writes."""
    with open_door(uvicorn.Config(_large, host="127.0.0.1", port=0, log_config=None)) as door:
        door.listen()
        with socket.create_connection(door.getsockname()):
            accepted, _ = door.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
