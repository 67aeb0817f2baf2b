"""Moments as text: RFC 3339 UTC with six decimals and ``Z``, so that text order is time order."""

from datetime import UTC, datetime


def timestamp(at: datetime) -> str:
    """RFC 3339 text of an aware datetime, UTC, microseconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def instant(text: str) -> datetime:
    """The aware datetime of a stored timestamp."""
    return datetime.fromisoformat(text)


def elapsed_ms(since: str, until: datetime) -> int:
    """Whole milliseconds from a stored timestamp, never negative."""
    return max(0, round((until - instant(since)).total_seconds() * 1000))
