"""Traces to a collector by OTLP over HTTP, through OpenTelemetry's own exporter.

The exporter itself reads ``OTEL_EXPORTER_OTLP_HEADERS`` and ``…_CERTIFICATE``.
"""

from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from governor.errors import OutageError
from governor.traces import Span

_PATIENCE_S = 5
_RESOURCE = Resource({"service.name": "ggen-governor"})
_SCOPE = InstrumentationScope("ggen.record")


class OtlpTraces:
    """See ``ports.traces.Traces`` for what it promises."""

    is_on = True

    def __init__(self, endpoint: str) -> None:
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_PATIENCE_S)

    def export(self, spans: Sequence[Span]) -> None:
        if self._exporter.export([_readable(span) for span in spans]) is SpanExportResult.FAILURE:
            raise OutageError("collector-away", "the OTLP collector did not take the spans", 30)


def _readable(span: Span) -> ReadableSpan:
    attributes = {**span.attributes, **({"error.type": span.error} if span.error else {})}
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=_context(span.trace_id, span.parent_id) if span.parent_id else None,
        resource=_RESOURCE,
        attributes=attributes,
        kind=SpanKind.INTERNAL if span.parent_id else SpanKind.SERVER,
        instrumentation_scope=_SCOPE,
        status=Status(StatusCode.ERROR if span.error else StatusCode.OK),
        start_time=span.began_ns,
        end_time=span.ended_ns,
    )


def _context(trace_id: int, span_id: int) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=flags)
