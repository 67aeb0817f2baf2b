"""A receiver of actions by HTTP that does it right: each once, and none after its rollback.

    python receiver.py DATABASE PORT SECRET

SECRET is what ``ggen policy secret SKU PLAN`` prints: two secrets, with a comma between, while it
is changed. ``pip install standardwebhooks`` is all it needs.

An action's id has one row. ``working`` becomes ``done`` in the transaction of the effect itself,
and only if it is still ``working``: a rollback that came meanwhile has made it ``undone``, and so
it stays. Work that ends after its rollback has no effect. Work that comes after it never begins.
"""

import json
import sqlite3
import sys
import time
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

TABLES = """
CREATE TABLE IF NOT EXISTS actions (key TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS seats (key TEXT PRIMARY KEY, account TEXT NOT NULL, number INTEGER);
"""


def execute(database: sqlite3.Connection, key: str, told: dict[str, Any]) -> tuple[int, Any]:
    """Add seats, once."""
    number = told["payload"].get("number")
    if not isinstance(number, int):
        return 422, {
            "code": "NO_NUMBER",
            "recoverable": False,
            "detail": "payload.number is missing",
        }
    with database:
        database.execute("INSERT INTO actions VALUES (?, 'working') ON CONFLICT DO NOTHING", [key])
    (state,) = database.execute("SELECT state FROM actions WHERE key = ?", [key]).fetchone()
    if state == "working":
        time.sleep(told["payload"].get("work_s", 0))  # whatever the work is
        with database:
            done = database.execute(
                "UPDATE actions SET state = 'done' WHERE key = ? AND state = 'working'", [key]
            )
            if done.rowcount:
                database.execute(
                    "INSERT INTO seats VALUES (?, ?, ?)", [key, told["account_id"], number]
                )
                return 200, {"result": {"added": number}}
    (state,) = database.execute("SELECT state FROM actions WHERE key = ?", [key]).fetchone()
    if state == "done":
        return 200, {"result": {"added": number}}  # the same request again
    return 409, {"code": "UNDONE", "recoverable": True, "detail": "its rollback came first"}


def roll_back(database: sqlite3.Connection, key: str) -> tuple[int, Any]:
    """Take the seats away, whether they are there, are still to come, or never came."""
    with database:
        database.execute("REPLACE INTO actions VALUES (?, 'undone')", [key])
        database.execute("DELETE FROM seats WHERE key = ?", [key])
    return 200, {}


def is_signed(body: bytes, headers: dict[str, str], secrets: list[str]) -> bool:
    """Whether one of our secrets signed it, in the last five minutes."""
    for secret in secrets:
        try:
            Webhook(secret).verify(body, headers)
        except WebhookVerificationError:
            continue
        return True
    return False


def serve(path: str, port: int, secrets: list[str]) -> ThreadingHTTPServer:
    """A server on the loopback interface, not running yet."""
    with closing(sqlite3.connect(path)) as database:
        database.executescript(TABLES)

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            if not is_signed(body, headers, secrets):
                return self.answer(401, {"code": "NOT_SIGNED", "recoverable": False})
            told = json.loads(body)
            key = told["action_id"]  # which is signed; headers are not, but the webhook's own
            with closing(sqlite3.connect(path, timeout=10)) as database:
                if told["kind"] == "rollback":
                    return self.answer(*roll_back(database, key))
                return self.answer(*execute(database, key, told))

        def answer(self, status: int, value: Any) -> None:
            text = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            with suppress(ConnectionError):  # its deadline was over, and its caller is gone
                self.end_headers()
                self.wfile.write(text)

        def log_message(self, *_words: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", port), Receiver)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), sys.argv[3].split(",")).serve_forever()
