"""Three verifiers, one verdict: ``ggen verify-archive``, ``verify.py``, and VERIFY.md by hand.

A corpus of manipulations is made of one honest archive. Each verifier judges each one. They must
agree; where a step of VERIFY.md says that it cannot see something, it alone may call it valid.
"""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cli.audit.verify_archive import Against, verify_or_tell
from governor.times import timestamp
from ledger import archive, canonical, contracts
from ledger.checkpoint import Checkpoint, sign
from ledger.keys import KeyRing, TrustedKey, fingerprint
from ledger.merkle import Frontier, leaf_hash
from ledger.receipt import PAYLOAD_TYPE, Signer, receipt_id
from ledger.tiles import Tiles

pytestmark = pytest.mark.timeout(300)
AUDITOR = Path(archive.__file__).with_name("auditor")
ORIGIN, ACCOUNT = "ledger.example", "acme"
OLD = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
NEW = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
FORGER = Signer(Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34))))
START = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
ROTATED = START + timedelta(hours=1)
RING = KeyRing(
    origin=ORIGIN,
    keys=(
        TrustedKey.of(OLD.public_key, timestamp(START)).evolve(valid_until=timestamp(ROTATED)),
        TrustedKey.of(NEW.public_key, timestamp(ROTATED)),
    ),
)
TRUSTED = [fingerprint(each.public_key) for each in (OLD, NEW)]
Files = dict[str, bytes]


@dataclass
class Told:
    """A receipt and its leaf, as an insider with the key can make them."""

    fields: dict[str, Any]
    signer: Signer = OLD
    at: datetime = START
    text: Callable[[bytes], bytes] = lambda text: text
    line: Callable[[bytes], bytes] = lambda line: line
    leaf: Callable[[dict[str, Any]], dict[str, Any]] = lambda leaf: leaf
    leaf_text: Callable[[bytes], bytes] = lambda text: text

    def made(self, index: int) -> tuple[bytes, bytes]:
        """Its line and its leaf."""
        payload = self.text(canonical.dumps(self.fields))
        kind = PAYLOAD_TYPE.encode()
        signed = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        signature = base64.b64encode(self.signer.sign_bytes(signed)).decode()
        line = self.line(
            canonical.dumps(
                {
                    "payload": base64.b64encode(payload).decode(),
                    "payloadType": PAYLOAD_TYPE,
                    "signatures": [{"keyid": self.signer.key_id, "sig": signature}],
                }
            )
        )
        leaf = self.leaf(
            {
                "account_id": ACCOUNT,
                "envelope_sha256": hashlib.sha256(line).hexdigest(),
                "index": index,
                "receipt_id": self.fields.get("receipt_id", "x"),
                "recorded_at": timestamp(self.at),
                "v": 1,
            }
        )
        return line, self.leaf_text(canonical.dumps(leaf))


def told(subject: str, at: datetime = START, signer: Signer = OLD, **changes: Any) -> Told:
    fields = {
        "receipt_id": receipt_id(ACCOUNT, "action_complete", subject),
        "timestamp": timestamp(at),
        "operation": "action_complete",
        "account_id": ACCOUNT,
        "status": "success",
        "duration_ms": 12,
        "action_id": subject,
        "sku_id": "crm",
        "signal_type": "seats",
        "handler": "crm.resize",
        "policy_version": "1.0.0",
        "queue_ms": 5,
        "run_ms": 7,
        **changes,
    }
    return Told({k: v for k, v in fields.items() if v is not None}, signer, at)


def scaled(at: datetime, cost: float) -> Told:
    """A receipt with a fraction in it."""
    fields = contracts.validate(
        {
            "receipt_id": receipt_id(ACCOUNT, "governor_scaled", "s"),
            "timestamp": timestamp(at),
            "operation": "governor_scaled",
            "account_id": ACCOUNT,
            "status": "success",
            "duration_ms": 1,
            "sku_id": "crm",
            "concurrency": {"previous": 20, "new": 50},
            "quota_check": "passed",
            "cost_delta_usd": cost,
        }
    ).model_dump(mode="json", exclude_none=True)
    return Told(fields, NEW, at)


def honest() -> list[Told]:
    later = ROTATED + timedelta(minutes=1)
    failed = told(
        "f",
        START + timedelta(seconds=2),
        operation="action_failed",
        status="failed",
        contract_version=2,
        entitlement_id="crm",
        is_recoverable=True,
        rollback="none",
        error_code="E",
        error_sha256="a" * 64,
    )
    failed.fields["receipt_id"] = receipt_id(ACCOUNT, "action_failed", "f")
    return [
        told("a"),
        told("b", START + timedelta(seconds=1)),
        failed,
        scaled(later, 0.5),
        told("ü", later + timedelta(seconds=1), NEW),
    ]


def files_of(entries: Iterable[Told], signer: Signer = NEW, **changes: Any) -> Files:
    """The files of an archive, as whoever holds the key can make them."""
    made = [each.made(index) for index, each in enumerate(entries)]
    tiles, tree, files = Tiles(), Frontier(), archive.fixed_files(RING)
    for _, leaf in made:
        files.update(tiles.append(leaf))
        tree = tree.append(leaf_hash(leaf))
    files.update(tiles.finish())
    files[archive.RECEIPTS] = b"".join(line + b"\n" for line, _ in made)
    stated = Checkpoint(
        changes.get("name", f"{ORIGIN}/{ACCOUNT}"), changes.get("size", tree.size), tree.root()
    )
    files[archive.CHECKPOINT] = sign(stated, signer).encode()
    return files


def packed(files: Files, *, manifest: bool = True, order: bool = True) -> bytes:
    """An archive of these files, with a manifest that fits them, unless they bring their own."""
    if manifest:
        digests = {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}
        digests.pop(archive.MANIFEST, None)
        files = {**files, archive.MANIFEST: archive.manifest(digests)}
    target = io.BytesIO()
    names = sorted(files, reverse=not order)
    archive.write(target, ((n, len(files[n]), io.BytesIO(files[n])) for n in names))
    return target.getvalue()


HONEST = files_of(honest())
WHOLE = packed(HONEST)
Case = tuple[str, bytes, bool, bool, int]
"""Its name, the archive, whether it holds, whether VERIFY.md may not see what is wrong, and where
the archive has to begin."""


def case(
    name: str, content: bytes, *, holds: bool = False, blind: bool = False, first: int = 0
) -> Case:
    return name, content, holds, blind, first


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def of_the_package() -> Iterator[Case]:
    """What is done to the tar.gz as a whole."""
    yield case("honest", WHOLE, holds=True)
    yield case("members in another order", packed(HONEST, order=False), holds=True)
    for part in range(1, 6):
        yield case(f"cut at {part}/6", WHOLE[: len(WHOLE) * part // 6])
    for at in range(12, len(WHOLE), len(WHOLE) // 6):
        yield case(f"a bit of the gzip at {at}", _flipped(WHOLE, at))
    yield case("gzip: crc", _flipped(WHOLE, len(WHOLE) - 6))
    yield case("gzip: length", _flipped(WHOLE, len(WHOLE) - 2))
    yield case("gzip: cut by one byte", WHOLE[:-1])
    yield case("gzip: a byte appended", WHOLE + b"x")
    yield case("gzip: a second archive appended", WHOLE + WHOLE, blind=True)
    tar = gzip.decompress(WHOLE)
    yield case("tar: something behind its end", gzip.compress(tar + b"x" * 512), blind=True)
    for name, at in (("name", 0), ("size", 130), ("checksum", 150), ("type", 156), ("magic", 258)):
        yield case(f"tar header: {name}", gzip.compress(_flipped(tar, at)))
    yield case("tar: no member", gzip.compress(b"\0" * 10240))
    for name, kind, linked in (
        ("link", tarfile.SYMTYPE, "checkpoint"),
        ("hard", tarfile.LNKTYPE, "checkpoint"),
        ("folder", tarfile.DIRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ):
        yield case(f"tar: a {name}", _with_member(f"tile/0/{name}", kind, linked))
    for name in ("../evil", "/etc/evil", "extra", "tile/x", "schema/../x.json", "a\x1b[2Jb"):
        yield case(f"tar: the name {name!r}", _with_member(name, tarfile.REGTYPE, ""))
    yield case("tar: a member twice", _with_member("checkpoint", tarfile.REGTYPE, ""))


def _with_member(name: str, kind: bytes, linked: str) -> bytes:
    target = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(WHOLE)) as source,
        tarfile.open(fileobj=target, mode="w:gz", format=tarfile.GNU_FORMAT) as tar,
    ):
        for member in source:
            tar.addfile(member, source.extractfile(member))
        extra = tarfile.TarInfo(name)
        extra.type, extra.linkname = kind, linked
        extra.size = 1 if kind == tarfile.REGTYPE else 0
        tar.addfile(extra, io.BytesIO(b"x"))
    return target.getvalue()


def of_the_members() -> Iterator[Case]:
    """What is done to one file, by whoever has no key; the manifest is made to fit, or not."""
    unsigned = ("VERIFY.md", "verify.py")
    names = [n for n in HONEST if not n.startswith("schema/")]
    names += ["schema/action_complete.v1.json", "schema/action_failed.v2.json"]
    for name in names:
        content = HONEST[name]
        others = {n: c for n, c in HONEST.items() if n != name}
        middle = {**HONEST, name: _flipped(content, len(content) // 2)}
        longer = {**HONEST, name: content + b"x"}
        if name in unsigned:
            yield case(f"{name}: another text", packed(longer), holds=True)
            yield case(f"{name}: gone", packed(others), holds=True)
        else:
            yield case(f"{name}: gone", packed(others), blind=name.startswith("schema/"))
            yield case(
                f"{name}: empty", packed({**HONEST, name: b""}), blind=name.startswith("schema/")
            )
            if not name.startswith("schema/"):
                if name != archive.KEYS:  # that file has cases of its own
                    yield case(f"{name}: a bit", packed(middle))
                yield case(
                    f"{name}: a byte more", packed(longer), blind=name.startswith("tile/entries")
                )
        if name not in ("verify.py", "checkpoint", archive.RECEIPTS):
            continue
        manifest = _manifest(WHOLE)
        yield case(
            f"{name}: a byte more than the manifest has",
            packed({**longer, archive.MANIFEST: manifest}, manifest=False),
        )
    yield case("the manifest: gone", packed(HONEST, manifest=False))
    manifest = _manifest(WHOLE)
    for name, changed in {
        "a line less": manifest.split(b"\n", 1)[1],
        "a line twice": manifest + manifest.split(b"\n", 1)[0] + b"\n",
        "another order": b"\n".join(reversed(manifest.strip().split(b"\n"))) + b"\n",
        "no end": manifest[:-1],
        "rubbish": manifest + b"rubbish\n",
        "a file that is not there": manifest + b"0" * 64 + b"  zzz\n",
    }.items():
        yield case(
            f"the manifest: {name}", packed({**HONEST, archive.MANIFEST: changed}, manifest=False)
        )
    yield case(
        "an unknown operation's stricter schema",
        packed({**HONEST, "schema/action_complete.v1.json": b'{"required":["nonsense"]}'}),
        blind=True,
    )
    stricter = json.loads(HONEST["schema/action_complete.v1.json"])
    stricter["properties"]["timestamp"] = {"const": "never"}
    stricter = json.dumps(stricter).encode()
    yield case(
        "a schema that is never fulfilled",
        packed({**HONEST, "schema/action_complete.v1.json": stricter}),
        blind=True,
    )
    broken = HONEST["schema/action_complete.v1.json"].replace(b'"pattern": "^', b'"pattern": "(', 1)
    yield case(
        "a schema with a malformed pattern",
        packed({**HONEST, "schema/action_complete.v1.json": broken}),
        blind=True,
    )
    yield case("a tile too many", packed({**HONEST, "tile/1/000.p/1": b"x" * 32}), blind=True)
    yield case(
        "a bundle too many", packed({**HONEST, "tile/entries/001.p/1": b"\0\1x"}), blind=True
    )


def _manifest(content: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return tar.extractfile(archive.MANIFEST).read()  # type: ignore[union-attr]


def of_the_lines() -> Iterator[Case]:
    """What is done to the receipts' lines, the checkpoint's and the keys, without a key."""
    lines = HONEST[archive.RECEIPTS].splitlines(keepends=True)
    forged = told("forged", signer=FORGER).made(5)[0]
    for name, changed in {
        "one left out": lines[1:],
        "the last one left out": lines[:-1],
        "two swapped": [lines[1], lines[0], *lines[2:]],
        "one twice": [*lines, lines[0]],
        "a forged one without an end": [*lines, forged],
        "a forged one": [*lines, forged + b"\n"],
        "the last without an end": [*lines[:-1], lines[-1][:-1]],
        "an empty line": [*lines, b"\n"],
        "carriage returns": [e[:-1] + b"\r\n" for e in lines],
        "a blank in one": [lines[0].replace(b",", b", ", 1), *lines[1:]],
        "another signature": [lines[0].replace(b'"sig":"', b'"sig":"A'), *lines[1:]],
        "one emptied": [b"\n", *lines[1:]],
        "a nul": [b"\0" + lines[0], *lines[1:]],
    }.items():
        yield case(f"lines: {name}", packed({**HONEST, archive.RECEIPTS: b"".join(changed)}))
    note = HONEST[archive.CHECKPOINT].decode()
    head, size, root, _empty, signature, _ = note.split("\n")
    foreign = sign(Checkpoint(f"{ORIGIN}/{ACCOUNT}", 5, base64.b64decode(root)), FORGER)
    other = sign(Checkpoint(f"{ORIGIN}/{ACCOUNT}", 4, base64.b64decode(root)), OLD).split("\n")[4]
    for name, text in {
        "another name": note.replace(ACCOUNT, "umbrella"),
        "another size": note.replace(f"\n{size}\n", "\n6\n", 1),
        "a size with a zero": note.replace(f"\n{size}\n", f"\n0{size}\n", 1),
        "another root": note.replace(root, base64.b64encode(b"\1" * 32).decode()),
        "no empty line": "\n".join([head, size, root, signature, ""]),
        "no end": note[:-1],
        "another signature line": note + signature + "\n",
        "the signature of another key": foreign,
        "the signature of another tree": "\n".join([head, size, root, "", other, ""]),
        "nobody's line before ours": "\n".join(
            [head, size, root, "", foreign.split("\n")[4], signature, ""]
        ),
        "a hyphen": note.replace("\u2014", "-"),
        "blanks": note.replace("\u2014 ", "\u2014  "),
        "an extension line": "\n".join([head, size, root, "more", "", signature, ""]),
        "a control character": note.replace(ACCOUNT, ACCOUNT + "\x1b[2J"),
        "only its first line": head + "\n",
        "carriage returns": note.replace("\n", "\r\n"),
    }.items():
        yield case(f"checkpoint: {name}", packed({**HONEST, archive.CHECKPOINT: text.encode()}))
    keys = json.loads(HONEST[archive.KEYS])
    for name, change in {
        "origin": lambda k: k.update(origin="ledger.elsewhere"),
        "the key of the checkpoint gone": lambda k: k["keys"].pop(),
        "the key of receipts gone": lambda k: k["keys"].pop(0),
        "another key's bytes": lambda k: k["keys"][1].update(
            public_key=base64.b64encode(FORGER.public_key.public_bytes_raw()).decode()
        ),
        "no key": lambda k: k.update(keys=[]),
    }.items():
        changed = json.loads(json.dumps(keys))
        change(changed)  # type: ignore[no-untyped-call]
        yield case(f"keys: {name}", packed({**HONEST, archive.KEYS: json.dumps(changed).encode()}))
    for name, value in {
        "valid_until": timestamp(START - timedelta(days=1)),
        "leaked_at": timestamp(START),
        "valid_from": timestamp(START + timedelta(days=9)),
    }.items():
        changed = json.loads(json.dumps(keys))
        changed["keys"][0][name] = value
        yield case(
            f"keys: {name}",
            packed({**HONEST, archive.KEYS: json.dumps(changed).encode()}),
            blind=True,
        )


def of_an_insider() -> Iterator[Case]:
    """What somebody who holds the key can sign, and no verifier may take."""

    def rewritten(
        name: str, at: int, *, holds: bool = False, blind: bool = False, **changes: Any
    ) -> Case:
        entries = honest()
        for field, value in changes.items():
            setattr(entries[at], field, value)
        return case(f"insider: {name}", packed(files_of(entries)), holds=holds, blind=blind)

    def with_fields(name: str, *, blind: bool = True, holds: bool = False, **fields: Any) -> Case:
        entries = honest()
        entries[0].fields = {
            k: v for k, v in {**entries[0].fields, **fields}.items() if v is not None
        }
        return case(f"insider: {name}", packed(files_of(entries)), holds=holds, blind=blind)

    yield with_fields("no duration", duration_ms=None)
    yield with_fields("a duration in words", duration_ms="12")
    yield with_fields("a negative duration", duration_ms=-1)
    yield with_fields("a duration that is true", duration_ms=True)
    yield with_fields("a field too many", more="x")
    yield with_fields("another status", status="failed")
    yield with_fields("an operation nobody knows", operation="action_imagined")
    yield with_fields("a version nobody knows", contract_version=9)
    yield with_fields("a first version that says so", contract_version=1)
    yield with_fields("a version with another's fields", operation="action_failed", status="failed")
    yield with_fields("a time that is none", timestamp="2026-13-45T12:00:00.000000Z")
    yield with_fields("a time without a zone", timestamp="2026-11-26T12:00:00.000000")
    yield with_fields("another account", account_id="umbrella", blind=False)
    yield with_fields("control characters", handler="\x1b[2J=> valid", blind=True, holds=True)
    yield with_fields(
        "a time an hour off", timestamp=timestamp(START - timedelta(hours=1)), holds=True
    )
    yield with_fields(
        "a time an hour ahead", timestamp=timestamp(START + timedelta(hours=1)), holds=True
    )
    yield with_fields(
        "a spooled one", spooled=True, timestamp=timestamp(START - timedelta(hours=1)), holds=True
    )
    yield with_fields("no receipt_id", receipt_id=None, blind=False)
    yield rewritten("blanks in the text", 0, text=lambda t: t.replace(b",", b", ", 1), blind=True)
    yield rewritten(
        "a key twice in the text", 0, text=lambda t: b'{"account_id":"acme",' + t[1:], blind=True
    )
    yield rewritten(
        "another operation twice",
        0,
        text=lambda t: t.replace(
            b'"policy_version"', b'"operation":"action_failed","policy_version"'
        ),
        blind=True,
    )
    yield rewritten("no JSON", 0, text=lambda _: b"receipt", blind=False)
    yield rewritten("a list", 0, text=lambda _: b"[1]", blind=False)
    yield rewritten(
        "a fraction written otherwise", 3, text=lambda t: t.replace(b"0.5", b"0.50"), blind=True
    )
    yield rewritten(
        "a whole number as a fraction",
        0,
        text=lambda t: t.replace(b'"run_ms":7', b'"run_ms":7.0'),
        blind=True,
    )
    yield rewritten(
        "an escaped letter", 4, text=lambda t: t.replace("ü".encode(), b"\\u00fc"), blind=True
    )
    yield rewritten(
        "blanks in the envelope", 0, line=lambda e: e.replace(b",", b", ", 1), blind=True
    )
    yield rewritten(
        "a second signature", 0, line=lambda e: e[:-2] + b',{"keyid":"x","sig":"x"}]}', blind=True
    )
    yield rewritten(
        "another type", 0, line=lambda e: e.replace(b"receipt.v1", b"receipt.v2"), blind=True
    )
    yield rewritten(
        "a bad signature",
        1,
        line=lambda e: re.sub(
            rb'"sig":"(.)', lambda m: b'"sig":"' + (b"B" if m[1] == b"A" else b"A"), e
        ),
    )
    yield rewritten("base64 of another form", 1, line=lambda e: e.replace(b'=="}]', b'"}]'))
    yield rewritten("another's key", 1, signer=FORGER)
    yield rewritten("a retired key", 4, signer=OLD, blind=True)
    yield rewritten("a key before its time", 0, signer=NEW, blind=True)
    for name, change in {
        "an index": {"index": 3},
        "an account": {"account_id": "umbrella"},
        "an earlier time": {"recorded_at": timestamp(START - timedelta(days=1))},
        "a rejected one": {"rejected": "no"},
        "another id": {"receipt_id": "x"},
        "another hash": {"envelope_sha256": "0" * 64},
    }.items():
        yield rewritten(f"leaf: {name}", 1, leaf=lambda leaf, change=change: {**leaf, **change})
    yield rewritten(
        "leaf: an index beyond doubles",
        1,
        leaf_text=lambda t: t.replace(b'"index":1,', b'"index":1e999,'),
    )
    yield rewritten("leaf: a field more", 1, leaf=lambda leaf: {**leaf, "more": 1}, blind=True)
    yield rewritten("leaf: blanks", 1, blind=True, leaf_text=lambda t: t.replace(b",", b", ", 1))
    yield rewritten(
        "leaf: a key twice",
        1,
        leaf_text=lambda t: t.replace(b'"index":1,', b'"index":1,"index":1,'),
        blind=True,
    )
    again = honest()
    yield case("insider: one receipt sealed twice", packed(files_of([*again, again[4]])))
    twice = told("b", ROTATED + timedelta(minutes=2), NEW, run_ms=8)
    yield case("insider: two texts under one id", packed(files_of([*again, twice])))
    yield case("insider: a checkpoint of fewer", packed(files_of(honest(), size=4)))
    yield case("insider: a checkpoint of more", packed(files_of(honest(), size=6)))
    yield case(
        "insider: a checkpoint of another account",
        packed(files_of(honest(), name=f"{ORIGIN}/umbrella")),
    )
    yield case(
        "insider: signed by a retired key", packed(files_of(honest(), signer=OLD)), blind=True
    )
    without = files_of(honest())
    del without[archive.RECEIPTS]
    yield case(
        "no receipts, another's signature",
        packed(
            {**without, archive.CHECKPOINT: files_of(honest(), signer=FORGER)[archive.CHECKPOINT]}
        ),
    )


def segment_of(entries: list[Told], first: int) -> Files:
    """The files of a segment that begins with the entry ``first``."""
    made = [each.made(index) for index, each in enumerate(entries)]
    files, tree = archive.fixed_files(RING), Frontier()
    for index, (_, leaf) in enumerate(made):
        if index == first:
            files[archive.BASE] = archive.Base.of(tree).text()
        tree = tree.append(leaf_hash(leaf))
    files[archive.RECEIPTS] = b"".join(line + b"\n" for line, _ in made[first:])
    files[archive.LEAVES] = b"".join(leaf + b"\n" for _, leaf in made[first:])
    stated = Checkpoint(f"{ORIGIN}/{ACCOUNT}", tree.size, tree.root())
    files[archive.CHECKPOINT] = sign(stated, NEW).encode()
    return files


def of_segments() -> Iterator[Case]:
    """Archives that begin where others end."""
    for first in range(1, 5):
        whole = packed(segment_of(honest(), first))
        yield case(f"from {first} on", whole, holds=True, first=first)
        yield case(f"from {first} on, taken for a whole one", whole)
    yield case("nothing from 5 on", packed(segment_of(honest(), 5)), first=5)
    files = segment_of(honest(), 3)
    base = json.loads(files[archive.BASE])
    for name, changed in {
        "no subtree": {**base, "nodes": []},
        "a subtree too many": {**base, "nodes": [*base["nodes"], "0" * 64]},
        "another subtree": {**base, "nodes": ["0" * 64, base["nodes"][1]]},
        "the subtrees in another order": {**base, "nodes": base["nodes"][::-1]},
        "another size": {**base, "size": 5},
        "no size": {**base, "size": 0, "nodes": []},
    }.items():
        yield case(
            f"its base: {name}",
            packed({**files, archive.BASE: canonical.dumps(changed) + b"\n"}),
            first=3,
        )
    spaced = json.dumps(base).encode() + b"\n"
    spaced = packed({**files, archive.BASE: spaced})
    yield case("its base: with spaces", spaced, blind=True, first=3)
    for name in (archive.BASE, archive.LEAVES, archive.RECEIPTS):
        less = packed({n: c for n, c in files.items() if n != name})
        yield case(f"without {name}", less, first=3)
    for name in (archive.LEAVES, archive.RECEIPTS):
        lines = files[name].splitlines(keepends=True)
        less = packed({**files, name: b"".join(lines[1:])})
        yield case(f"{name}: a line less", less, first=3)
        yield case(f"{name}: no end", packed({**files, name: files[name][:-1]}), first=3)
    tiled = packed({**files, "tile/0/000.p/1": b"x" * 32})
    yield case("tiles in a segment", tiled, first=3)
    yield case("leaves.jsonl beside tiles", packed({**HONEST, archive.LEAVES: b""}))


def ending(counts: dict[str, Any], start: dict[str, Any] | None = None) -> list[Told]:
    """A ledger whose entitlement ended: two actions by themselves, one explicitly."""
    at = ROTATED + timedelta(minutes=2)
    run = {"run_id": "run-1", "event_id": "e", "body_sha256": "0" * 64, "entitlement_id": "crm"}
    shared = {"contract_version": 2, "sku_id": "crm", "duration_ms": 1, **run}

    def receipt(operation: str, status: str, seconds: int, **more: Any) -> Told:
        moment = at + timedelta(seconds=seconds)
        fields = contracts.validate(
            {
                "receipt_id": receipt_id(ACCOUNT, operation, "run-1"),
                "timestamp": timestamp(moment),
                "operation": operation,
                "account_id": ACCOUNT,
                "status": status,
                "effective_at": timestamp(at),
                **shared,
                **more,
            }
        )
        return Told(fields.model_dump(mode="json", exclude_none=True), NEW, moment)

    end = {
        "governor": "decommissioned",
        "fsm_id": "governor-acme-g1",
        "in_flight_actions": 1,
        "actions_completed": 0,
        "actions_failed": 1,
        "actions_timed_out": 0,
        "actions_accepted": 4,
        "signals_refused": 0,
        "undelivered_unknown": 0,
        "receipts_archived": 6,
        "archive_gcs_path": "gs://archives/acme/2026-11-26.tar.gz",
        "archive_size_bytes": 1,
        "archive_sha256": "0" * 64,
        "checkpoint_size": 6,
        "checkpoint_root": "0" * 64,
        **counts,
    }
    return [
        *honest(),
        receipt(
            "decommission_start", "in_progress", 0, **{"in_flight_actions": 1, **(start or {})}
        ),
        receipt("decommission_complete", "complete", 9, **end),
    ]


def of_the_counts() -> Iterator[Case]:
    """What somebody with the key may sign, and the counts do not allow."""

    whole = ending({})
    late = told("late", ROTATED + timedelta(minutes=3), NEW)
    for name, entries in {
        "hold": whole,
        "not told": ending({"actions_accepted": None}),
        "one too many accepted": ending({"actions_accepted": 5}),
        "one too few accepted": ending({"actions_accepted": 3}),
        "more in flight than ended": ending({}, {"in_flight_actions": 2}),
        "no start": [*whole[:-2], whole[-1]],
        "an action after the end": [*whole, late],
    }.items():
        holds = name in ("hold", "not told")
        yield case(f"counts: {name}", packed(files_of(entries)), holds=holds, blind=not holds)
    # Of a segment the counts of what came before are not judged, those of what is in it are.
    for first, holds in ((1, True), (6, True)):
        short = ending({"actions_accepted": 1})
        part = packed(segment_of(short, first))
        yield case(f"counts from {first} on", part, holds=holds, first=first)
    early = packed(segment_of([*whole, late], 6))
    yield case("counts: an action after the end, in a segment", early, blind=True, first=6)
    twice = ending({"actions_accepted": 0})[-1]
    twice = Told(
        {**twice.fields, "receipt_id": receipt_id(ACCOUNT, "action_failed", "2")}, NEW, late.at
    )
    yield case("counts: a second end", packed(files_of([*whole, twice])), blind=True)


CASES = [
    *of_the_package(),
    *of_the_members(),
    *of_the_lines(),
    *of_an_insider(),
    *of_segments(),
    *of_the_counts(),
]


def by_hand(
    folder: Path,
    path: Path,
    account_id: str = ACCOUNT,
    identity: str = "",
    more: str = "",
    trusted: Iterable[str] = TRUSTED,
) -> "subprocess.CompletedProcess[str]":
    """VERIFY.md's commands, by bash, up to the first that does not hold; ``more`` goes before."""
    steps = re.findall(r"```bash\n(.*?)```", (AUDITOR / "VERIFY.md").read_text(), re.DOTALL)
    assert len(steps) == 7
    script = (
        f"{more}\nARCHIVE={path}\nFINGERPRINT='{' '.join(trusted)}'\nACCOUNT={account_id}\nID={identity}\n"
        + '\n[ -z "$BROKEN$CANNOT" ] || { echo NOT VERIFIED; [ -z "$CANNOT" ] || exit 5; exit 1; }\n'.join(
            steps
        )
    )
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )


def by_python(
    path: Path,
    *more: str,
    account_id: str = ACCOUNT,
    env: dict[str, str] | None = None,
    **options: Any,
) -> "subprocess.CompletedProcess[str]":
    """``verify.py``, with nothing of ours to import."""
    keys = [word for each in TRUSTED for word in ("--fingerprint", each)]
    return subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            AUDITOR / "verify.py",
            *keys,
            "--account-id",
            account_id,
            *more,
            path,
        ],
        env={"PATH": "/usr/bin:/bin", **(env or {})},
        capture_output=not options,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "keys.json"
    path.write_text(RING.model_dump_json(exclude_none=True))
    return path


@pytest.mark.alone
def test_three_verifiers_agree_on_every_manipulation(
    trust: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    assert len(CASES) >= 200
    is_thorough = pytestconfig.getoption("--thorough")

    def judge(number: int) -> str:
        name, content, holds, blind, first = CASES[number]
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "a.tar.gz"
        path.write_bytes(content)
        expected = 0 if holds else 1
        python = by_python(path, "--from", str(first))
        # What VERIFY.md may not see, it need not say each time.
        hand = python
        if is_thorough or not blind:
            hand = by_hand(folder, path, more=f"FROM={first}")
        against = Against(trust, account_id=ACCOUNT, begins_at=first)
        ours = verify_or_tell(path, against=against).report
        verdicts = (0 if ours.is_valid else 1, python.returncode, hand.returncode)
        if verdicts[:2] != (expected, expected) or (verdicts[2] != expected and not blind):
            return f"{name}: {verdicts}, expected {expected}: {ours.findings[:1]}\n{python.stdout}{python.stderr}{hand.stdout}{hand.stderr[-300:]}"
        for output in (python.stdout, hand.stdout):
            assert "\x1b" not in output, name
            assert "Traceback" not in output, name
        return ""

    with ThreadPoolExecutor(3) as pool:
        wrong = [each for each in pool.map(judge, range(len(CASES))) if each]
    assert not wrong, f"{len(wrong)} of {len(CASES)}:\n" + "\n".join(wrong)


def test_a_genuine_archive_of_another_account_is_not_the_one_asked_for(
    trust: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(WHOLE)

    assert not verify_or_tell(path, against=Against(trust, account_id="umbrella")).report.is_valid
    assert by_python(path, account_id="umbrella").returncode == 1
    assert by_hand(tmp_path, path, account_id="umbrella").returncode == 1


@pytest.mark.parametrize("openssl", ["echo LibreSSL 3.3.6", ""])
def test_without_a_suitable_openssl_nothing_is_judged(tmp_path: Path, openssl: str) -> None:
    path, tools = tmp_path / "a.tar.gz", tmp_path / "bin"
    path.write_bytes(WHOLE)
    tools.mkdir()
    for tool in os.listdir("/usr/bin"):
        if tool != "openssl":
            (tools / tool).symlink_to(f"/usr/bin/{tool}")
    if openssl:
        (tools / "openssl").write_text(f"#!/bin/sh\n{openssl}\n")
        (tools / "openssl").chmod(0o755)

    done = by_python(path, env={"PATH": str(tools)})
    hand = by_hand(tmp_path, path, more=f"PATH={tools}")

    assert (done.returncode, done.stdout) == (5, "")
    assert "cannot verify here" in done.stderr
    assert hand.returncode == 5, hand.stdout
    assert "cannot verify here" in hand.stdout


def test_a_full_output_a_closed_pipe_and_a_strange_locale_are_not_the_archives_fault(
    tmp_path: Path, trust: Path
) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(WHOLE)
    ggen = [sys.executable, "-m", "cli.main", "verify-archive", str(path), "--trust", str(trust)]

    def ours(more: dict[str, str], **options: Any) -> int:
        env = {**os.environ, **more}
        return subprocess.run(
            ggen, env=env, stderr=subprocess.DEVNULL, check=False, **options
        ).returncode

    with Path("/dev/full").open("w") as full:
        assert by_python(path, stdout=full, stderr=subprocess.DEVNULL).returncode == 5
        assert ours({}, stdout=full) == 5
    reader, writer = os.pipe()
    os.close(reader)
    assert by_python(path, stdout=writer, stderr=subprocess.DEVNULL).returncode == 0
    assert ours({}, stdout=writer) == 0
    os.close(writer)
    for locale in (
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
    ):
        assert by_python(path, env=locale).returncode == 0
        assert ours(locale, stdout=subprocess.DEVNULL) == 0


def test_without_room_to_unpack_nothing_is_judged(tmp_path: Path, trust: Path) -> None:
    path, small = tmp_path / "a.tar.gz", tmp_path / "small"
    path.write_bytes(WHOLE)
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", small]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        ours = subprocess.run(
            [sys.executable, "-m", "cli.main", "verify-archive", path, "--trust", trust],
            env={**os.environ, "TMPDIR": str(small)},
            capture_output=True,
            text=True,
            check=False,
        )
        script = by_python(path, env={"TMPDIR": str(small)})
        hand = by_hand(small, path)
    finally:
        subprocess.run(["umount", "-l", small], check=True)

    assert (ours.returncode, script.returncode, hand.returncode) == (5, 5, 5)
    assert "cannot verify here" in ours.stderr
    assert "cannot verify here" in script.stderr
    assert "cannot verify here" in hand.stdout


def test_a_clock_that_was_off_is_said_and_breaks_nothing(trust: Path, tmp_path: Path) -> None:
    entries = honest()
    entries[0].fields["timestamp"] = timestamp(START - timedelta(hours=1))
    path = tmp_path / "a.tar.gz"
    path.write_bytes(packed(files_of(entries)))

    report = verify_or_tell(path, against=Against(trust)).report
    assert report.words() == "valid, clock off by up to 3600 s in 1 receipts"
    assert by_python(path).stdout.splitlines()[-1] == report.words()
    assert by_python(path, "--strict").returncode == 7


def test_a_key_that_came_along_is_not_taken_for_the_one_that_is_trusted(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(WHOLE)

    done = by_hand(tmp_path, path, trusted=["0" * 64])

    assert "step 1: BROKEN" in done.stdout
    assert done.returncode == 1


def test_the_steps_can_be_taken_again_with_all_keys_in_the_same_shell(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(WHOLE)
    steps = re.findall(r"```bash\n(.*?)```", (AUDITOR / "VERIFY.md").read_text(), re.DOTALL)
    taken = "\n".join(steps)
    first, again = f"FINGERPRINT={TRUSTED[1]}", f"FINGERPRINT='{' '.join(TRUSTED)}'"
    script = f"ARCHIVE=a.tar.gz\nACCOUNT={ACCOUNT}\nID=\n{first}\n{taken}\n{again}\n{taken}"

    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    verdicts = [e for e in done.stdout.splitlines() if e in ("VERIFIED", "NOT VERIFIED")]
    assert verdicts == ["NOT VERIFIED", "VERIFIED"], done.stdout + done.stderr[-300:]
    assert done.returncode == 0


def test_by_hand_a_receipt_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(WHOLE)
    identity = honest()[4].fields["receipt_id"]

    done = by_hand(tmp_path, path, identity=identity)

    assert [line for line in done.stdout.splitlines() if line.startswith("step")] == [
        f"step {n}: ok" for n in range(7)
    ]
    assert f'"receipt_id": "{identity}"' in done.stdout
    assert done.stdout.splitlines()[-1] == "VERIFIED"
