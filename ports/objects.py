"""Objects: immutable blobs by name (policies, checkpoints, archives, the spool)."""

from collections.abc import Iterator
from typing import Protocol


class Objects(Protocol):
    """Create-only storage. What was acknowledged survives a crash and never changes."""

    def create(self, name: str, content: bytes) -> bool:
        """Store ``content``; True when this call made it, False when equal content lay there.

        Raises:
            ConflictError: other content lies under this name; it was not touched.
            InputError: the name is not ``segment/segment…`` of ``[A-Za-z0-9._~-]``.
            OutageError: unknown: it may have been stored; repeating is safe.
        """
        ...

    def get(self, name: str, most: int | None = None) -> bytes | None:
        """The content, the first ``most`` bytes of it, or None. Raises OutageError."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Names that begin with ``prefix``, sorted. Raises OutageError."""
        ...

    def address(self, name: str) -> str:
        """Where an object lies, for people: ``gs://bucket/name`` or ``file:///path/name``."""
        ...

    def delete(self, name: str) -> None:
        """Remove it; no error when it is not there.

        Raises:
            RetainedError: a retention protects it; it was kept.
            OutageError: unknown; repeating is safe.
        """
        ...
