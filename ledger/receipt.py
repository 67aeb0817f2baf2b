"""A receipt: canonical bytes, signed; the bytes stored are the bytes signed.

The signature is Ed25519 over the DSSE pre-authentication encoding of the payload (DSSE protocol,
version 1.0.2), the payload RFC 8785 JSON. Nothing here is ever re-encoded after signing.
"""

import base64
import hashlib
from typing import TYPE_CHECKING, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from governor.errors import InputError
from governor.records import Record
from ledger import canonical
from ledger.keys import key_id

if TYPE_CHECKING:
    from ledger.contracts import Receipt

PAYLOAD_TYPE = "application/vnd.ggen.receipt.v1+json"

COPIES = ("receipt_id", "account_id", "operation", "timestamp", "status")
"""The fields that are also stored beside the signed text, for queries."""


class SignedReceipt(Record):
    """``tenants/{account_id}/receipts/{receipt_id}``.

    ``payload`` is the signed text and the truth; ``receipt_id``, ``account_id``, ``operation``,
    ``timestamp`` and ``status`` are copies for queries, and verification compares them.
    """

    payload: str
    signature: str
    key_id: str
    sha256: str
    receipt_id: str
    account_id: str
    operation: str
    timestamp: str
    status: str

    def fields(self) -> dict[str, Any]:
        """The contract's fields, read from the signed text."""
        fields: dict[str, Any] = canonical.loads(self.payload)
        return fields


class Signer:
    """Signs receipts with one private key, in this process (35 µs)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key()
        self.key_id = key_id(self.public_key)

    def sign_bytes(self, text: bytes) -> bytes:
        """The signature over ``text`` as it is (RFC 8032). Deterministic."""
        return self._key.sign(text)

    def sign(self, receipt: "Receipt") -> SignedReceipt:
        """Canonicalise and sign one receipt. Deterministic: same receipt and key, same bytes."""
        payload = canonical.dumps(receipt.model_dump(mode="json", exclude_none=True))
        return SignedReceipt(
            payload=payload.decode(),
            signature=base64.b64encode(self.sign_bytes(_pae(payload))).decode(),
            key_id=self.key_id,
            sha256=hashlib.sha256(payload).hexdigest(),
            receipt_id=receipt.receipt_id,
            account_id=receipt.account_id,
            operation=receipt.operation,
            timestamp=receipt.timestamp,
            status=receipt.status,
        )


def envelope(stored: SignedReceipt) -> bytes:
    """The receipt as a DSSE envelope, in canonical JSON: what a leaf of the log names by its hash.

    It is also the receipt's line in an archive, so that ``sha256sum`` is all it takes to compare.

    Raises:
        ValueError: the text has no UTF-8 form.
    """
    payload = base64.b64encode(stored.payload.encode()).decode()
    key_id, signature = map(canonical.plain_text, (stored.key_id, stored.signature))
    return (
        f'{{"payload":"{payload}","payloadType":"{PAYLOAD_TYPE}",'
        f'"signatures":[{{"keyid":{key_id},"sig":{signature}}}]}}'
    ).encode()


def from_envelope(line: bytes) -> SignedReceipt:
    """A receipt from its envelope; the copies are taken from the signed text.

    Raises:
        InputError: it is no envelope of a receipt, or there is another way to write it.
    """
    try:
        given = canonical.loads(line)
        text = base64.b64decode(given["payload"], validate=True).decode()
        fields = canonical.loads(text)
        stored = SignedReceipt(
            payload=text,
            signature=given["signatures"][0]["sig"],
            key_id=given["signatures"][0]["keyid"],
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            **{name: fields[name] for name in COPIES},
        )
        made = envelope(stored)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputError("bad-envelope", "not a DSSE envelope of one receipt") from error
    if made != line:
        raise InputError("bad-envelope", "not the canonical form of its envelope")
    return stored


def is_signed_by(stored: SignedReceipt, key: Ed25519PublicKey) -> bool:
    """Whether the signature over exactly the stored text is this key's."""
    try:
        raw = base64.b64decode(stored.signature, validate=True)
        key.verify(raw, _pae(stored.payload.encode()))
    except (InvalidSignature, ValueError):
        return False
    return base64.b64encode(raw).decode() == stored.signature


def receipt_id(account_id: str, operation: str, subject: str, attempt: int = 1) -> str:
    """The UUID (version 8, RFC 9562) of one attempt at one operation on one subject (D12).

    The same operation always has the same id, so a redelivery cannot produce a second receipt.

    Raises:
        InputError: ``operation`` has no contract.
    """
    from ledger import contracts  # 14 MiB that processes without receipts do not need

    contracts.newest(operation)
    words = (account_id, operation, subject, str(attempt))
    digest = bytearray(
        hashlib.sha256(
            b"".join(len(w.encode()).to_bytes(4, "big") + w.encode() for w in words)
        ).digest()[:16]
    )
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _pae(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
