"""Moments as text: RFC 3339 UTC with six decimals and ``Z``, so that text order is time order."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(at: datetime) -> str:
    """RFC 3339 text of an aware datetime, UTC, microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instant(text: str) -> datetime:
    """The aware datetime of a stored timestamp."""
    return datetime.fromisoformat(text)


def microseconds(text: str) -> int:
    """A stored timestamp as whole microseconds since 1970."""
    return (instant(text) - _EPOCH) // timedelta(microseconds=1)


def elapsed_ms(since: str, until: datetime) -> int:
    """Whole milliseconds from a stored timestamp, never negative."""
    return max(0, round((until - instant(since)).total_seconds() * 1000))
