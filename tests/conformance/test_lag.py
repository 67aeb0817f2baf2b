"""Lag from Cloud Monitoring, as a local server in its place answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from google.auth.credentials import AnonymousCredentials

from adapters.gcp.monitoring import MonitoredLag
from governor.errors import OutageError


class Monitoring:
    """What it answers, and what it was asked."""

    status = 200
    body = b"{}"
    path = ""


@pytest.fixture
def monitoring() -> Iterator[tuple[Monitoring, MonitoredLag]]:
    told = Monitoring()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.path = self.path
            self.send_response(told.status)
            self.send_header("Content-Length", str(len(told.body)))
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    lag = MonitoredLag("acme-project", url=url, credentials=AnonymousCredentials())
    yield told, lag
    lag.close()
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_newest_point_of_the_subscription_is_told(
    monitoring: tuple[Monitoring, MonitoredLag],
) -> None:
    told, lag = monitoring
    points = [{"value": {"int64Value": "17"}}, {"value": {"int64Value": "3"}}]
    told.body = json.dumps({"timeSeries": [{"points": points}]}).encode()

    assert lag.undelivered("tenants.acme.signals") == 17
    asked = urlsplit(told.path)
    assert asked.path == "/v3/projects/acme-project/timeSeries"
    query = parse_qs(asked.query)["filter"][0]
    assert "num_undelivered_messages" in query
    assert 'subscription_id="tenants.acme.signals"' in query


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"{}"),
        (200, b'{"timeSeries": []}'),
        (200, b'{"timeSeries": [{"points": []}]}'),
        (200, b"[]"),
        (200, b"not json"),
        (403, b"{}"),
        (503, b"{}"),
    ],
)
def test_a_figure_that_is_not_there_is_an_outage_and_never_a_zero(
    monitoring: tuple[Monitoring, MonitoredLag], status: int, body: bytes
) -> None:
    told, lag = monitoring
    told.status, told.body = status, body
    with pytest.raises(OutageError):
        lag.undelivered("tenants.acme.signals")


def test_an_emulator_says_that_it_tells_no_lag() -> None:
    with pytest.raises(OutageError, match="emulator"):
        MonitoredLag("p", is_emulated=True).undelivered("x")
