"""A relay before a real server that may swallow what the server answers, or say nothing at all."""

import contextlib
import socket
import threading
from collections.abc import Iterator


class Relay:
    """``host:port`` of the relay; ``deaf``: requests get through, answers do not.

    While it ``refuses``, no connection lives: as if the server were not there.

    ``deaf`` is what an answer must contain not to get through; ``b""`` is in every one.
    """

    def __init__(self, server: str) -> None:
        host, _, port = server.removeprefix("http://").partition(":")
        self._server = (host, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self.deaf: bytes | None = None
        self.swallowed = threading.Event()
        self.refuses = False
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self.refuses:
                    client.close()
                    continue
                server = socket.create_connection(self._server)
                self._open |= {client, server}
                for pair in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if is_answer and self.deaf is not None and self.deaf in data:
                    self.swallowed.set()
                    continue
                target.sendall(data)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def cut(self) -> None:
        """End every connection: whoever waits for an answer hears that there will be none."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@contextlib.contextmanager
def relay(server: str) -> Iterator[Relay]:
    between = Relay(server)
    thread = threading.Thread(target=between.run)
    thread.start()
    try:
        yield between
    finally:
        between.close()
        thread.join()


@contextlib.contextmanager
def silent() -> Iterator[str]:
    """A server that accepts every connection and never says a word: ``host:port``."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"
