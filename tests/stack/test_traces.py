"""Traces that survive kills: a hundred actions, a fifth killed, a fifth stuck, a hundred traces."""

import gzip
import json
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from adapters.wiring import open_documents
from governor.actions import Action
from governor.fsm import ActionState
from governor.paths import action_path
from ports.documents import Documents
from tests.stack.conftest import Stack, new_stack
from tests.support.waiting import until

WELL, KILLED, STUCK = 60, 20, 20
ACCOUNT = "traced"


class Collector:
    """Spans by trace, as an OTLP collector would hear them."""

    def __init__(self, server: HTTPServer) -> None:
        self.traces: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.url = server.url_for("/v1/traces")
        server.expect_request("/v1/traces", method="POST").respond_with_handler(self._take)

    def _take(self, request: Request) -> Response:
        body = request.get_data()
        body = gzip.decompress(body) if request.headers.get("Content-Encoding") == "gzip" else body
        sent = ExportTraceServiceRequest.FromString(body)
        for span in (s for r in sent.resource_spans for c in r.scope_spans for s in c.spans):
            told = {a.key: a.value.string_value for a in span.attributes}
            self.traces[span.trace_id.hex()].append(
                {"name": span.name, "id": span.span_id, "parent": span.parent_span_id, **told}
            )
        return Response(status=200)

    def of_actions(self) -> dict[str, list[dict[str, Any]]]:
        """Action id -> its spans."""
        return {
            root["ggen.action_id"]: spans
            for spans in self.traces.values()
            for root in spans
            if "ggen.action_id" in root
        }


@pytest.fixture
def collector() -> Iterator[Collector]:
    with HTTPServer() as server:
        yield Collector(server)


@pytest.fixture
def traced(tmp_path: Path, collector: Collector) -> Iterator[Stack]:
    stack = new_stack(tmp_path, GGEN_OTLP_ENDPOINT=collector.url)
    started = stack.ggen("up", "--detach")
    assert started.returncode == 0, started.stderr
    yield stack
    stack.ggen("down")


def test_a_hundred_actions_are_a_hundred_whole_traces(traced: Stack, collector: Collector) -> None:
    traced.subscribe(ACCOUNT, "enterprise")
    documents = open_documents(traced.settings)
    ids = [_send(traced, "demo.succeed", n) for n in range(WELL)]
    dead = [_killed(traced, documents, n) for n in range(KILLED)]
    stuck = [_send(traced, "demo.spin", n) for n in range(STUCK)]
    ids += [*dead, *stuck]
    until(lambda: all(_of(documents, each).ended_at for each in ids), 120)
    documents.close()

    until(lambda: set(collector.of_actions()) >= set(ids), 30)
    found = collector.of_actions()
    for each in ids:
        spans = found[each]
        roots = [s for s in spans if not s["parent"]]
        assert len(roots) == 1
        assert {s["parent"] for s in spans} <= {b"", roots[0]["id"]}
        assert [s for s in spans if s["name"].startswith("receipt ")]
    # One whose time was over when the reaper came by has timed out all the same (D18).
    assert {found[each][0].get("error.type") for each in dead} <= {"process-died", "deadline"}
    assert {found[each][0].get("error.type") for each in stuck} == {"deadline"}
    assert "0.45" not in json.dumps(collector.traces, default=str)  # no payload
    runs = [
        s for spans in collector.traces.values() for s in spans if s["name"].startswith("webhook")
    ]
    assert len(runs) == 1
    drawn = traced.ggen("trace", dead[0], "--account-id", ACCOUNT).stdout
    assert "execute demo.sleep" in drawn
    assert max(map(len, drawn.splitlines())) <= 80


def _send(stack: Stack, kind: str, number: int, **payload: Any) -> str:
    signal_id = f"{kind}-{number}"
    answer = stack.signal(ACCOUNT, {"signal_id": signal_id, "type": kind, "payload": payload})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["action_id"])


def _killed(stack: Stack, documents: Documents, number: int) -> str:
    """An action whose process is killed while its handler runs."""
    action_id = _send(stack, "demo.sleep", number, seconds=0.45)
    until(lambda: _of(documents, action_id).state is not ActionState.PENDING, 30)
    found = _of(documents, action_id)
    assert found.claim
    assert found.state is ActionState.RUNNING
    os.kill(found.claim.pid, signal.SIGKILL)
    return action_id


def _of(documents: Documents, action_id: str) -> Action:
    found = documents.get(action_path(ACCOUNT, action_id))
    assert found
    return Action.stored(found.data)
