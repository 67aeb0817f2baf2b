"""Traces on their way to a collector that is away, or refuses one of them."""

import dataclasses
import gzip
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from adapters.otlp import OtlpTraces
from ports import Ports
from tasks.ledgers.seal import seal_ledger
from tasks.ledgers.trace import export_noted
from tests.engine.conftest import event
from tests.support.cancel import act
from tests.support.runs import ACCOUNT, subscribe


class Picky:
    """A collector that refuses each request with a span of one action in it."""

    def __init__(self, server: HTTPServer, status: int) -> None:
        self.refused = ""
        self.taken = set[str]()
        self._status = status
        server.expect_request("/v1/traces", method="POST").respond_with_handler(self._take)

    def _take(self, request: Request) -> Response:
        body = request.get_data()
        body = gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body
        sent = ExportTraceServiceRequest.FromString(body)
        spans = [s for r in sent.resource_spans for c in r.scope_spans for s in c.spans]
        actions = {
            a.value.string_value for s in spans for a in s.attributes if a.key == "ggen.action_id"
        }
        if self.refused in actions:
            return Response(status=self._status)
        self.taken |= actions
        return Response(status=200)


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer() as server:
        yield server


def _traced(ports: Ports, server: HTTPServer) -> Ports:
    return dataclasses.replace(ports, traces=OtlpTraces(server.url_for("/v1/traces")))


def test_one_trace_that_is_refused_holds_no_other_up(ports: Ports, server: HTTPServer) -> None:
    ports, collector = _traced(ports, server), Picky(server, 400)
    subscribe(ports, event())
    ids = [act(ports, f"s-{n}") for n in range(3)]
    collector.refused = ids[1]
    assert seal_ledger(ports, ACCOUNT)

    export_noted(ports)

    assert collector.taken == {ids[0], ids[2]}
    assert ports.measures.ended(10) == []


def test_while_the_collector_is_away_traces_wait(ports: Ports, server: HTTPServer) -> None:
    ports = _traced(ports, server)  # it answers 500 to what it does not know
    subscribe(ports, event())
    action_id = act(ports, "s-1")
    assert seal_ledger(ports, ACCOUNT)

    export_noted(ports)
    assert ports.measures.ended(10)
    assert [t.name for t in ports.troubles.troubles()] == ["collector-away"]

    collector = Picky(server, 400)
    export_noted(ports)
    assert collector.taken == {action_id}
