"""Where traces go: a collector of OpenTelemetry's, or nowhere."""

from collections.abc import Sequence
from typing import Protocol

from governor.traces import Span


class Traces(Protocol):
    """A collector of spans."""

    @property
    def is_on(self) -> bool:
        """Whether an operator has named a collector."""
        ...

    def export(self, spans: Sequence[Span]) -> None:
        """Hand spans over; a span that was handed over before is the same span there.

        Raises:
            OutageError: the collector did not take them.
        """
        ...


class Untraced:
    """No collector."""

    is_on = False

    def export(self, spans: Sequence[Span]) -> None:
        """Drop them."""
