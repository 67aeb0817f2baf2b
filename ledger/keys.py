"""The keys a verifier trusts, and for how long each was in use.

A key file names everything an auditor must have from us by another way than the ledger itself:
origin, public keys, and when each key's time began and ended. A verifier rejects
signatures by a key that is not in it, and those recorded outside of their key's time.
"""

import base64
import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, NewType, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from governor.errors import InputError
from governor.records import Record, Timestamp
from governor.times import instant
from ledger import canonical

KeyId = NewType("KeyId", str)

GRACE = timedelta(seconds=60)
"""What was signed just before a rotation may be recorded this long after it."""

ALWAYS = "1970-01-01T00:00:00.000000Z"
"""The beginning of a key whose first use was not recorded."""

_P = 2**255 - 19
_ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
_LOW_ORDER_Y = frozenset({0, 1, _P - 1, _ORDER_8_Y, _P - _ORDER_8_Y})
"""The y of the eight points of small order on Edwards 25519 (RFC 8032 section 5.1)."""


def load_public_key(raw: bytes) -> Ed25519PublicKey:
    """A public key from its 32 bytes.

    The library would accept keys for which anyone can forge a signature: points of small order,
    and second encodings of one point.

    Raises:
        InputError: it is such a key, or not 32 bytes.
    """
    if len(raw) != 32:
        raise InputError("bad-key", f"an Ed25519 public key has 32 bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & (1 << 255) - 1
    if y >= _P or y in _LOW_ORDER_Y:
        raise InputError(
            "bad-key",
            f"public key {raw.hex()} is of low order or not canonical: anybody could sign for it. "
            "Nothing was verified with it; ask for the right key",
        )
    return Ed25519PublicKey.from_public_bytes(raw)


def key_id(key: Ed25519PublicKey) -> KeyId:
    """A public key's name: the first 16 bytes of its fingerprint, in hex."""
    return KeyId(fingerprint(key)[:32])


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 over a public key's raw 32 bytes, in hex: the value an operator publishes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


@lru_cache
def _loaded(text: str) -> Ed25519PublicKey:
    return load_public_key(base64.b64decode(text, validate=True))


def _public_key_text(text: str) -> str:
    _loaded(text)
    return text


class TrustedKey(Record):
    """One key and its time.

    ``valid_until`` is absent while it is in use. ``leaked_at`` is the first time at which another
    person may have had it. Signatures recorded from then on are rejected, to the second.
    """

    key_id: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
    public_key: Annotated[str, AfterValidator(_public_key_text)] = Field(
        description="base64 of the 32 raw bytes"
    )
    valid_from: Timestamp
    valid_until: Timestamp | None = None
    leaked_at: Timestamp | None = None

    @classmethod
    def of(cls, key: Ed25519PublicKey, valid_from: str) -> Self:
        """A key that is in use from then on."""
        raw = base64.b64encode(key.public_bytes_raw()).decode()
        return cls(key_id=key_id(key), public_key=raw, valid_from=valid_from)

    @property
    def key(self) -> Ed25519PublicKey:
        """The key itself."""
        return _loaded(self.public_key)


class KeyRing(Record):
    """The trusted keys of one ledger origin, oldest first."""

    origin: str
    keys: tuple[TrustedKey, ...]

    def __iter__(self) -> Iterator[TrustedKey]:  # type: ignore[override]  # over keys, not fields
        return iter(self.keys)

    def log_origin(self, account_id: str) -> str:
        """What an account's log is called; also the name of the key in its checkpoints."""
        return f"{self.origin}/{account_id}"

    def find(self, key_id: str) -> TrustedKey | None:
        """The key of this name, if it is trusted."""
        return next((key for key in self.keys if key.key_id == key_id), None)


def parse_ring(text: str | bytes) -> KeyRing:
    """A key ring from its file.

    Raises:
        InputError: it is no key ring, holds an unsafe key, or lists one under another key's id.
    """
    try:
        ring = KeyRing.model_validate(canonical.loads(text))
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, fault["loc"]))
        raise InputError(
            "bad-key-file",
            f"not a file of ledger keys ({where}: {fault['msg']}). Make one with: ggen keys export",
        ) from None
    for trusted in ring:
        if key_id(trusted.key) != trusted.key_id:
            raise InputError(
                "bad-key-file", f"key {trusted.key_id} is listed with the bytes of another key"
            )
    return ring


def untimely(key: TrustedKey, recorded_at: datetime, *, made_later: bool = False) -> str:
    """Why what ``key`` signed cannot have been recorded then; empty when it can.

    A checkpoint may be ``made_later`` than what it covers, by a key that came later.
    """
    if not made_later and recorded_at < instant(key.valid_from) - GRACE:
        return f"recorded at {recorded_at}, before key {key.key_id} was in use ({key.valid_from})"
    if key.leaked_at is not None and recorded_at >= instant(key.leaked_at):
        return f"recorded after key {key.key_id} had leaked ({key.leaked_at})"
    if key.valid_until is not None and recorded_at > instant(key.valid_until) + GRACE:
        return f"recorded at {recorded_at}, after key {key.key_id} was retired ({key.valid_until})"
    return ""


def within(trusted: KeyRing, named: KeyRing) -> KeyRing:
    """The trusted keys that another ring names too, each within the times that both give it."""
    both = [(key, other) for key in trusted for other in [named.find(key.key_id)] if other]
    return KeyRing(origin=trusted.origin, keys=tuple(_both(*pair) for pair in both))


def _both(key: TrustedKey, named: TrustedKey) -> TrustedKey:
    ends = [each.valid_until for each in (key, named) if each.valid_until]
    leaks = [each.leaked_at for each in (key, named) if each.leaked_at]
    return key.evolve(
        valid_from=max(key.valid_from, named.valid_from),
        valid_until=min(ends, default=None),
        leaked_at=min(leaks, default=None),
    )
