"""The ledger's signing keys: one in use, and all that ever were, each with its time."""

from datetime import datetime
from typing import Protocol

from ledger.keys import KeyId, KeyRing
from ledger.receipt import Signer


class Keys(Protocol):
    """Reloaded when they change, so that a rotation needs no restart.

    Every method raises OutageError when a key cannot be read or is malformed; the message names
    its place and contains no part of it.
    """

    def signer(self) -> Signer:
        """The key in use."""
        ...

    def ring(self) -> KeyRing:
        """Every key by which this ledger was or is signed, and the ledger's origin."""
        ...

    def rotate(self, at: datetime) -> tuple[KeyId, KeyId]:
        """Make a new key and use it from now on; the key before it, and the new one.

        Killed half-way, either key is in use and both are trusted; repeating it is safe.
        """
        ...

    def disown(self, key_id: str, leaked_at: datetime) -> None:
        """Believe nothing by this key that was recorded at ``leaked_at`` or later.

        Raises:
            InputError: there is no such key, it is the one in use, the time lies before its first
                use, or after the time already noted. Nothing was changed.
        """
        ...
