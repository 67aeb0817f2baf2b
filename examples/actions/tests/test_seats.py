"""A handler and its rollback are functions, and so is their test."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from crm_actions.seats import Seats, add, remove

from ggen_governor import ActionContext


class Crm(BaseHTTPRequestHandler):
    """A CRM that keeps seats in memory."""

    seats: dict[str, int] = {}

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seats[self.path] = body["number"]
        self._done()

    def do_DELETE(self) -> None:
        self.seats.pop(self.path, None)
        self._done()

    def _done(self) -> None:
        self.send_response(204)
        self.end_headers()


@pytest.fixture
def crm() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Crm)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_seats_are_added_and_taken_away_again(crm: str) -> None:
    context = ActionContext("acme", "crm", "action-1", "signal-1", time.monotonic() + 5)
    asked = Seats(number=3, crm=crm)

    assert add.execute(context, asked) == {"added": 3}
    assert Crm.seats == {"/seats/action-1": 3}

    remove(context, asked)
    assert Crm.seats == {}
