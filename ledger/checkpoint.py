"""Checkpoints: a tree's size and root, signed as a C2SP note that foreign tools verify.

c2sp.org/signed-note and c2sp.org/tlog-checkpoint. A note is text, an empty line, and a line for
each signature; signatures of unknown keys are passed over, so keys can change.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from governor.errors import InputError
from ledger.keys import KeyRing, TrustedKey, load_public_key
from ledger.merkle import HASH_BYTES
from ledger.receipt import Signer

_ED25519 = b"\x01"
_MAX_NOTE_CHARS = 64 * 1024
_NAME = re.compile(r"[^\s+]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_DASH = "\u2014 "

_Signature = tuple[str, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How large a log is, and the root over all of it."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def vkey(name: str, key: Ed25519PublicKey) -> str:
    """A verifier key, as C2SP tools take it: ``name+key id+type and key``."""
    encoded = base64.b64encode(_ED25519 + key.public_bytes_raw()).decode()
    return f"{name}+{_key_hash(name, key).hex()}+{encoded}"


def check_vkey(text: str) -> None:
    """Raise InputError ``bad-key`` where a text is no verifier key for Ed25519."""
    _parse_vkey(text)


def sign_text(body: str, name: str, key: Ed25519PrivateKey) -> str:
    """The signature line of a text under a key's name; the text ends with a line break."""
    raw = _key_hash(name, key.public_key()) + key.sign(body.encode())
    return f"{_DASH}{name} {base64.b64encode(raw).decode()}\n"


def open_note(text: str, vkey: str, *, most_chars: int = _MAX_NOTE_CHARS) -> str:
    """The text of a note, once the signature of ``vkey`` over it was verified.

    Raises:
        InputError: no note, no verifier key, not signed by it, or its signature does not fit.
    """
    name, key = _parse_vkey(vkey)
    body, signatures = _split(text, most_chars)
    if not _is_signed(body, signatures, name, key):
        raise InputError("bad-note", f"the note bears no signature of {name}")
    return body


def sign(checkpoint: Checkpoint, signer: Signer) -> str:
    """The note of a checkpoint; deterministic, the key's name is the origin."""
    body = checkpoint.text()
    raw = _key_hash(checkpoint.origin, signer.public_key) + signer.sign_bytes(body.encode())
    return f"{body}\n{_DASH}{checkpoint.origin} {base64.b64encode(raw).decode()}\n"


def open_checkpoint(note: str, origin: str, ring: KeyRing) -> tuple[Checkpoint, TrustedKey]:
    """A log's checkpoint, and the trusted key that signed it.

    Raises:
        InputError: it is none, of another origin, or not signed by any trusted key.
    """
    body, signatures = _split(note)
    checkpoint = parse(body)
    if checkpoint.origin != origin:
        raise InputError(
            "foreign-checkpoint", f"the checkpoint is of {checkpoint.origin[:256]!r}, not {origin}"
        )
    for trusted in reversed(ring.keys):
        if _is_signed(body, signatures, origin, trusted.key):
            return checkpoint, trusted
    raise InputError("bad-note", "the checkpoint is not signed by any trusted key")


def parse(body: str) -> Checkpoint:
    """The checkpoint of a note's text; who signed it is another matter.

    Raises:
        InputError: it is none.
    """
    lines = body.split("\n")
    if len(lines) != 4 or lines[3] or not lines[0] or not _SIZE.fullmatch(lines[1]):
        raise InputError("bad-note", "a checkpoint has three lines: origin, size, root")
    root = _base64(lines[2], "the root")
    if len(root) != HASH_BYTES:
        raise InputError("bad-note", f"the root has {len(root)} bytes, not {HASH_BYTES}")
    return Checkpoint(lines[0], int(lines[1]), root)


def _key_hash(name: str, key: Ed25519PublicKey) -> bytes:
    named = name.encode() + b"\n" + _ED25519 + key.public_bytes_raw()
    return hashlib.sha256(named).digest()[:4]


def _parse_vkey(text: str) -> tuple[str, Ed25519PublicKey]:
    parts = text.split("+", 2)
    if len(parts) != 3 or not _NAME.fullmatch(parts[0]):
        raise InputError("bad-key", "a verifier key is name+key id+base64")
    raw = _base64(parts[2], "the verifier key")
    if raw[:1] != _ED25519:
        raise InputError("bad-key", "only Ed25519 verifier keys (type 1) are known here")
    key = load_public_key(raw[1:])
    if _key_hash(parts[0], key).hex() != parts[1]:
        raise InputError("bad-key", "the verifier key's id is not that of its name and key")
    return parts[0], key


def _split(note: str, most_chars: int = _MAX_NOTE_CHARS) -> tuple[str, list[_Signature]]:
    if len(note) > most_chars or any(c < " " and c != "\n" for c in note):
        detail = f"a note is at most {most_chars} characters of text without control characters"
        raise InputError("bad-note", detail)
    body, gap, tail = note.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise InputError("bad-note", "a note is text, an empty line, and lines of signatures")
    return body + "\n", [_signature(line) for line in tail[:-1].split("\n")]


def _signature(line: str) -> _Signature:
    parts = line.removeprefix(_DASH).split(" ")
    if not line.startswith(_DASH) or len(parts) != 2 or not _NAME.fullmatch(parts[0]):
        raise InputError("bad-note", "a line of the note is no signature")
    raw = _base64(parts[1], "a signature")
    if len(raw) < 5:
        raise InputError("bad-note", "a signature of the note is too short")
    return parts[0], raw[:4], raw[4:]


def _is_signed(body: str, signatures: list[_Signature], name: str, key: Ed25519PublicKey) -> bool:
    """Whether the key signed; a signature in its name that does not fit spoils the whole note."""
    wanted = name, _key_hash(name, key)
    ours = [raw for signer, key_hash, raw in signatures if (signer, key_hash) == wanted]
    for raw in ours:
        try:
            key.verify(raw, body.encode())
        except InvalidSignature:
            raise InputError(
                "bad-note", f"the signature of {name} does not fit the note's text"
            ) from None
    return bool(ours)


def _base64(text: str, what: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("bad-note", f"{what} is not base64") from None
    if base64.b64encode(raw).decode() != text:
        raise InputError("bad-note", f"{what} is not canonical base64")
    return raw
