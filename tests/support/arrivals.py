"""An endpoint that subscriptions push to: it remembers what came, and takes it when it is told."""

import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Arrivals:
    """Message ids by account, and the headers of the last push."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.takes = False
        self.seen: dict[str, set[str]] = defaultdict(set)
        self.headers: dict[str, str] = {}


@contextmanager
def arrivals() -> Iterator[Arrivals]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            account_id = body["subscription"].rpartition("/")[2].split(".")[1]
            known.seen[account_id].add(body["message"]["messageId"])
            known.headers = dict(self.headers)
            self.send_response(204 if known.takes else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    known = Arrivals(f"http://127.0.0.1:{server.server_address[1]}/v1/pubsub/signals")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
