"""Every parser that takes bytes from outside: its valid inputs, and the errors that it declares."""

import base64
import gzip
import io
import json
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from governor import policy
from governor.errors import ActionError, GovernorError
from ingress import signature
from ingress.bodies import MarketplaceWebhook, PushEnvelope, SignalBody, parse
from ingress.routes.alerts import MonitoringAlert
from ingress.routes.policies import BucketPush, PolicyBody
from ingress.routes.reads import _position
from ledger import archive, canonical, checkpoint, completion, tiles
from ledger.auditor import verify
from ledger.balance import Balance
from ledger.keys import parse_ring
from ledger.log import parse_leaf
from ledger.receipt import from_envelope
from ports.calls import Answer
from tasks.actions import calls

_ROOT = Path(__file__).parents[2]
_FIXTURE = _ROOT / "tests" / "fixtures" / "v0.1.0"
# pragma: allowlist nextline secret
_SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes ....").decode()
_KEYS = (_FIXTURE / "keys.json").read_bytes()
_TAR = (_FIXTURE / "acme.tar.gz").read_bytes()
_AUDITOR = (
    *(verify.Broken, verify.CannotVerify, ValueError, LookupError, TypeError),
    *(AttributeError, ArithmeticError, RecursionError),
)
"""What the auditor's ``main`` turns into a verdict."""


@dataclass(frozen=True, slots=True)
class Target:
    """One parser."""

    parse: Callable[[bytes], object]
    seeds: Sequence[bytes]
    declared: tuple[type[BaseException], ...] = (GovernorError,)


def _json(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


_SIGNAL = _json(signal_id="s-1", type="demo.sleep", payload={"seconds": 2.5, "x": [1, {"y": None}]})
_EVENT = _json(
    event_type="entitlement.created",
    event_id="e-1",
    account_id="acme",
    sku_id="demo-sku",
    plan_type="starter",
    event_time="2026-11-26T00:00:00Z",
    effective_at="2026-11-26T01:00:00+01:00",
    region="us-central1",
)
_PUSH = _json(
    message={"data": base64.b64encode(_SIGNAL).decode(), "messageId": "1"},
    subscription="projects/p/subscriptions/tenants.acme.signals",
)
_ALERT = _json(
    version="1.2",
    incident={
        "incident_id": "0.x",
        "state": "open",
        "resource": {"labels": {"subscription_id": "tenants.acme.signals"}},
    },
)
_POLICY = (_ROOT / "config" / "policies" / "demo-sku.professional.json").read_bytes()
_BUCKET = _json(
    message={
        "attributes": {
            "objectId": "incoming/a.json",
            "objectGeneration": "1",
            "eventType": "OBJECT_FINALIZE",
        }
    }
)


@cache
def _members() -> dict[str, bytes]:
    with tarfile.open(_FIXTURE / "acme.tar.gz") as packed:
        found = {m.name: packed.extractfile(m) for m in packed}
        return {name: file.read() for name, file in found.items() if file}


def _entries() -> list[bytes]:
    return [v for n, v in _members().items() if n.startswith("tile/entries")]


def _untarred(data: bytes) -> None:
    for _, pieces in archive.read(io.BytesIO(data), len(data)):
        for _ in pieces:
            pass


def _unpacked(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "a.tar.gz"
        packed.write_bytes(data)
        verify.unpack(packed, Path(folder) / "out")


def _headers(data: bytes) -> None:
    text = data.decode("latin-1")
    for headers in (
        {"webhook-id": "m", "webhook-timestamp": "1795737600", "webhook-signature": text},
        {"webhook-id": "m", "webhook-timestamp": text[:30], "webhook-signature": "v1,AA=="},
        {"x-entitlement-signature": text},
    ):
        signature.check_webhook(headers, data, [_SECRET])


def _credentials(data: bytes) -> None:
    text = data.decode("latin-1")
    signature.is_token(text, "x")
    signature.is_password(text, "x")
    signature.is_password(f"Basic {text}", "x")
    signature.check_signal({"x-signature": text}, data, "key")


def _event(data: bytes) -> None:
    now = datetime(2026, 11, 27, tzinfo=UTC)
    parse(MarketplaceWebhook, data).event(data, now, now, "us-central1")


def _push(data: bytes) -> None:
    envelope = parse(PushEnvelope, data)
    assert envelope.account_id
    envelope.signal()


def _note(data: bytes) -> None:
    ring = parse_ring(_KEYS)
    checkpoint.open_checkpoint(data.decode("utf-8", "replace"), ring.log_origin("acme"), ring)


def _completed() -> bytes:
    """The form of a ``….complete.json``, around receipts of that release."""
    return completion.Completion(
        receipt=json.loads(_envelopes()[0]),
        leaf=next(iter(tiles.entries(_entries()[0]))).decode(),
        inclusion_proof=["ab" * 32],
        archived_size=1,
        consistency_proof=["cd" * 32],
        checkpoint=_members()["checkpoint"].decode(),
        keys=json.loads(_KEYS),
    ).text()


def _completion(data: bytes) -> None:
    """It raises nothing: what does not hold is a finding."""
    ring = parse_ring(_KEYS)
    note = _members()["checkpoint"].decode()
    tree, _ = checkpoint.open_checkpoint(note, ring.log_origin("acme"), ring)
    archived = completion.Archive("acme", tree, Balance(), ["00" * 32])
    list(completion.judge_completion(data, "it", archived, ring))


def _envelopes() -> list[bytes]:
    return _members()["receipts.jsonl"].splitlines()[:3]


@cache
def targets() -> dict[str, Target]:
    """By the parser's name."""
    leaf = next(iter(tiles.entries(_entries()[0])))
    tar = gzip.decompress(_TAR)
    position = b'["2026-11-26T00:00:00.000000Z","a/b"]'
    prints = {
        verify.sha256(base64.b64decode(key["public_key"])) for key in json.loads(_KEYS)["keys"]
    }
    return {
        "canonical.loads": Target(canonical.loads, [_SIGNAL, _EVENT, _POLICY]),
        "webhook": Target(_event, [_EVENT]),
        "signal": Target(lambda b: parse(SignalBody, b), [_SIGNAL]),
        "push": Target(_push, [_PUSH]),
        "monitoring alert": Target(lambda b: parse(MonitoringAlert, b), [_ALERT]),
        "policy by HTTP": Target(
            lambda b: parse(PolicyBody, b),
            [_json(new_policy=json.loads(_POLICY), policy_version="1.0.0")],
        ),
        "policy by bucket": Target(lambda b: parse(BucketPush, b), [_BUCKET]),
        "policy file": Target(lambda b: policy.parse(b, None), [_POLICY]),
        "page position": Target(
            lambda b: _position(base64.urlsafe_b64encode(b).decode()), [position]
        ),
        "page position, encoded": Target(
            lambda b: _position(b.decode("utf-8", "replace")), [base64.urlsafe_b64encode(position)]
        ),
        "webhook headers": Target(_headers, [b"v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="]),
        "policy headers": Target(
            lambda b: signature.check_policy({"x-signature": b.decode("latin-1")}, b, [_SECRET]),
            [b"sha256=" + b"0" * 64],
        ),
        "credentials": Target(_credentials, [b"Bearer abc", b"Basic eDp5", b"sha256=" + b"0" * 64]),
        "answer of an action's URL": Target(
            lambda b: calls._result(Answer(200 + len(b) % 300, b)),
            [_json(result={"a": 1}, code="X_Y", recoverable=True, detail="d")],
            (GovernorError, ActionError),
        ),
        "archive": Target(_untarred, [_TAR]),
        "archive, packed again": Target(lambda b: _untarred(gzip.compress(b, 1)), [tar]),
        "archive base": Target(archive.base_of, [b'{"nodes":["' + b"ab" * 32 + b'"],"size":1}\n']),
        "archive manifest": Target(
            lambda b: list(archive.check_manifest(b, {})), [_members()["MANIFEST.sha256"]]
        ),
        "proof of an end": Target(_completion, [_completed()], ()),
        "checkpoint": Target(_note, [_members()["checkpoint"]]),
        "key ring": Target(parse_ring, [_KEYS]),
        "receipt envelope": Target(from_envelope, _envelopes()),
        "leaf": Target(lambda b: parse_leaf(b.decode("utf-8", "replace")), [leaf]),
        "tile": Target(lambda b: list(tiles.entries(b)), _entries(), (ValueError,)),
        "auditor: JSON": Target(
            lambda b: verify.plain(b.decode("utf-8", "replace")), [_KEYS, _SIGNAL], _AUDITOR
        ),
        "auditor: keys": Target(lambda b: verify.trusted_keys(b, prints), [_KEYS], _AUDITOR),
        "auditor: archive": Target(_unpacked, [_TAR], _AUDITOR),
        "auditor: archive, packed again": Target(
            lambda b: _unpacked(gzip.compress(b, 1)), [tar], _AUDITOR
        ),
    }
