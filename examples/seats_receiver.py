"""A receiver that can be undone: a late or repeated call never brings back what was deleted.

    python seats_receiver.py seats.db 8090

``PUT /seats/{key}`` with ``{"number": 3}`` adds seats under a key of the caller's, an action's id.
``DELETE /seats/{key}`` takes them away and keeps a tombstone. ``GET /seats`` is the sum.
"""

import json
import sqlite3
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEPT_FOR_S = 24 * 3600
"""Longer than the slowest call on its way."""


def connect(file: str) -> sqlite3.Connection:
    """The seats, each under its key; without a number it is a tombstone."""
    opened = sqlite3.connect(file, isolation_level=None, timeout=10)
    opened.execute("CREATE TABLE IF NOT EXISTS seats (key TEXT PRIMARY KEY, number INT, at REAL)")
    return opened


def put(seats: sqlite3.Connection, key: str, number: int) -> bool:
    """Add seats once; False where they were deleted before they came."""
    values = key, number, time.time()
    seats.execute("INSERT INTO seats VALUES (?, ?, ?) ON CONFLICT DO NOTHING", values)
    (kept,) = seats.execute("SELECT number FROM seats WHERE key = ?", (key,)).fetchone()
    return kept is not None


def delete(seats: sqlite3.Connection, key: str) -> None:
    """Take seats away, whether they are there or still to come."""
    now = time.time()
    seats.execute("REPLACE INTO seats VALUES (?, NULL, ?)", (key, now))
    seats.execute("DELETE FROM seats WHERE number IS NULL AND at < ?", (now - KEPT_FOR_S,))


class Handler(BaseHTTPRequestHandler):
    """One thread for each request."""

    file = "seats.db"

    def do_PUT(self) -> None:  # the standard library's name
        """Add seats: 204, or 410 where they were deleted before."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(float(body.get("slow_s", 0)))
        self._answer(204 if put(connect(self.file), self._key(), int(body["number"])) else 410)

    def do_DELETE(self) -> None:
        """Take them away: 204, always."""
        delete(connect(self.file), self._key())
        self._answer(204)

    def do_GET(self) -> None:
        """How many there are."""
        (total,) = connect(self.file).execute("SELECT total(number) FROM seats").fetchone()
        self._answer(200, json.dumps({"seats": int(total)}).encode())

    def _key(self) -> str:
        return self.path.rpartition("/")[2]

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Handler.file = sys.argv[1]
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
