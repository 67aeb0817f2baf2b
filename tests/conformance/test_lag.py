"""Lag from Cloud Monitoring, as a local server in its place answers."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
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


def _series(*values: int, until: str) -> dict[str, object]:
    points = [{"value": {"int64Value": str(v)}, "interval": {"endTime": until}} for v in values]
    return {"points": points}


def test_the_newest_points_of_all_regions_are_summed_as_of_the_oldest_of_them(
    monitoring: tuple[Monitoring, MonitoredLag],
) -> None:
    told, lag = monitoring
    series = [
        _series(17, 3, until="2026-11-26T12:00:00Z"),
        _series(5, 900, until="2026-11-26T12:01:00Z"),
    ]
    told.body = json.dumps({"timeSeries": series}).encode()

    assert lag.undelivered("tenants.acme.signals") == (22, datetime(2026, 11, 26, 12, tzinfo=UTC))
    asked = urlsplit(told.path)
    assert asked.path == "/v3/projects/acme-project/timeSeries"
    query = parse_qs(asked.query)["filter"][0]
    assert "num_unacked_messages_by_region" in query
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
