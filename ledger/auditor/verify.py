#!/usr/bin/env python3
"""Verify the archive of a ledger with Python's standard library and openssl, and nothing else.

    python3 -I verify.py --fingerprint SHA256 [--receipt ID ...] [FOLDER]

FOLDER is where the archive was unpacked (here, if left out). The fingerprint is the SHA-256 of a
public key, and must come from somewhere else than this archive; give one for each key that was in
use. Exit code: 0 everything holds, 1 something does not, 2 it could not be run.

The same steps, by hand, are in VERIFY.md.
"""

import sys

if not sys.flags.isolated:
    del sys.path[0]  # nothing that lies beside this file is to be trusted, or imported

import argparse
import base64
import hashlib
import json
import shutil
import subprocess
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

PAYLOAD_TYPE = b"application/vnd.ggen.receipt.v1+json"
Fields = Dict[str, Any]
Keys = Dict[str, Fields]
MAX_AHEAD, MAX_BEHIND, GRACE = timedelta(seconds=5), timedelta(seconds=60), timedelta(seconds=60)


class Broken(Exception):
    """Something does not hold; the message says what and where."""


def expect(holds: object, fault: str) -> None:
    """Stop with ``fault`` unless it holds."""
    if not holds:
        raise Broken(fault)


def sha256(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def check_manifest(folder: Path) -> str:
    """Every file is listed with its SHA-256, and every file that is listed is there."""
    listed: Dict[str, str] = {}
    for line in (folder / "MANIFEST.sha256").read_text().splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    there.discard("MANIFEST.sha256")
    for name in sorted(there | set(listed)):
        expect(name in there, f"{name} is listed in MANIFEST.sha256, and missing")
        expect(name in listed, f"{name} is not listed in MANIFEST.sha256")
        found = hashlib.sha256()
        with (folder / name).open("rb") as file:
            while piece := file.read(1 << 20):
                found.update(piece)
        expect(found.hexdigest() == listed[name], f"{name} has another SHA-256 than listed")
    return f"{len(there)} files are as MANIFEST.sha256 lists them"


def trusted_keys(folder: Path, fingerprints: Set[str]) -> Tuple[str, Keys]:
    """The keys of keys.json whose fingerprints you brought."""
    listed = json.loads((folder / "keys.json").read_text())
    keys: Keys = {}
    for key in listed["keys"]:
        raw = base64.b64decode(key["public_key"], validate=True)
        expect(
            len(raw) == 32 and sha256(raw)[:32] == key["key_id"], "keys.json: a key is malformed"
        )
        if sha256(raw) in fingerprints:
            keys[key["key_id"]] = dict(key, raw=raw)
    expect(keys, "none of the fingerprints you trust is that of a key in keys.json")
    return listed["origin"], keys


def is_signed(raw_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ask openssl whether an Ed25519 signature fits."""
    pem = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + raw_key).decode()
    with tempfile.TemporaryDirectory() as scratch:
        files = {
            "key.pem": f"-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n".encode(),
            "message": message,
            "signature": signature,
        }
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        command = (
            "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in message -sigfile signature"
        )
        done = subprocess.run(command.split(), cwd=scratch, capture_output=True, check=False)
    return done.returncode == 0


def check_checkpoint(folder: Path, origin: str, keys: Keys) -> Tuple[str, int, bytes, Fields]:
    """The checkpoint is signed by a trusted key; its account, size, root, and that key."""
    text, _, lines = (folder / "checkpoint").read_text().rpartition("\n\n")
    name, size, root = text.split("\n")
    expect(name.startswith(origin + "/"), f"the checkpoint is of {name}, not of {origin}")
    message = (text + "\n").encode()
    for line in lines.splitlines():
        dash, signer, encoded = line.split(" ")
        signature = base64.b64decode(encoded)
        for key in keys.values():
            named = name.encode() + b"\n\x01" + key["raw"]
            is_ours = signature[:4] == hashlib.sha256(named).digest()[:4]
            if (dash, signer) == ("\u2014", name) and is_ours:
                fits = is_signed(key["raw"], message, signature[4:])
                expect(fits, "the checkpoint's signature does not fit")
                return name[len(origin) + 1 :], int(size), base64.b64decode(root), key
    raise Broken("the checkpoint is signed by no key whose fingerprint you trust")


def entries(folder: Path, size: int) -> Iterator[bytes]:
    """The leaves in order, out of the entry bundles."""
    for number in range((size + 255) // 256):
        width = min(256, size - number * 256)
        path = folder / "tile/entries" / tile_name(number, width)
        expect(path.is_file(), f"{path.relative_to(folder)} is missing")
        bundle, at = path.read_bytes(), 0
        for index in range(width):
            length = int.from_bytes(bundle[at : at + 2], "big")
            leaf = bundle[at + 2 : at + 2 + length]
            expect(leaf and len(leaf) == length, f"leaf {number * 256 + index} is cut off")
            yield leaf
            at += 2 + length
        expect(at == len(bundle), f"{path.relative_to(folder)} holds more than {width} leaves")


def tile_name(number: int, width: int) -> str:
    """The path of a tile or bundle in its level (c2sp.org/tlog-tiles)."""
    groups = [f"{number % 1000:03d}"]
    while number >= 1000:
        number //= 1000
        groups.insert(0, f"x{number % 1000:03d}")
    return "/".join(groups) + ("" if width == 256 else f".p/{width}")


def check_log(folder: Path, account_id: str, size: int, root: bytes, keys: Keys) -> str:
    """Every receipt is what its leaf says, every leaf is in its place, and all lead to the root."""
    levels: List[Optional[bytes]] = []
    required: Dict[str, List[str]] = {}
    recorded_at = ""
    with (folder / "receipts.jsonl").open("rb") as lines:
        for index, text in enumerate(entries(folder, size)):
            leaf = json.loads(text)
            where = f"receipt {leaf['receipt_id']} (leaf {index})"
            expect(leaf["account_id"] == account_id, f"{where}: of account {leaf['account_id']}")
            expect(leaf["index"] == index, f"{where}: says that it is leaf {leaf['index']}")
            expect(leaf["recorded_at"] >= recorded_at, f"{where}: recorded before the one before")
            line = lines.readline().rstrip(b"\n")
            expect(sha256(line) == leaf["envelope_sha256"], f"{where}: not what was sealed")
            expect("rejected" not in leaf, f"{where}: was no receipt: {leaf.get('rejected')}")
            check_receipt(folder, leaf, json.loads(line), keys, required)
            add(levels, hashlib.sha256(b"\x00" + text).digest())
            recorded_at = leaf["recorded_at"]
        expect(not lines.readline(), f"receipts.jsonl holds more than the {size} receipts sealed")
    found: Optional[bytes] = None
    for node in levels:
        if node is not None:
            found = node if found is None else hashlib.sha256(b"\x01" + node + found).digest()
    expect(
        (found or hashlib.sha256().digest()) == root, "the leaves do not lead to the signed root"
    )
    return recorded_at


def add(levels: List[Optional[bytes]], node: bytes) -> None:
    """Append a leaf's hash to the right edge of the tree (RFC 6962)."""
    for level, left in enumerate(levels):
        if left is None:
            levels[level] = node
            return
        node, levels[level] = hashlib.sha256(b"\x01" + left + node).digest(), None
    levels.append(node)


def check_receipt(
    folder: Path, leaf: Fields, envelope: Fields, keys: Keys, required: Dict[str, List[str]]
) -> None:
    """What a receipt says of itself fits its leaf, its contract and its key's time."""
    where = f"receipt {leaf['receipt_id']} (leaf {leaf['index']})"
    fields = json.loads(base64.b64decode(envelope["payload"], validate=True))
    for name in ("account_id", "receipt_id"):
        expect(fields.get(name) == leaf[name], f"{where}: its {name} is {fields.get(name)}")
    name = f"{fields.get('operation')}.v{fields.get('contract_version', 1)}"
    if name not in required:
        schema = folder / "schema" / f"{name}.json"
        if name.endswith(".v1") and not schema.is_file():
            schema = folder / "schema" / f"{name[:-3]}.json"  # an archive made by release 0.1.0
        known = name.replace(".", "_").isidentifier() and schema.is_file()
        expect(known, f"{where}: unknown operation or version {name[:80]!r}")
        required[name] = json.loads(schema.read_text())["required"]
    missing = [each for each in required[name] if each not in fields]
    expect(not missing, f"{where}: lacks {', '.join(missing)}")
    behind = instant(leaf["recorded_at"]) - instant(fields["timestamp"])
    is_late = behind > MAX_BEHIND and fields.get("spooled") is not True  # its store was away
    expect(behind >= -MAX_AHEAD and not is_late, f"{where}: its timestamp is {behind} off")
    key_id = envelope["signatures"][0]["keyid"]
    key = keys.get(key_id)
    if key is None:
        raise Broken(f"{where}: is signed by key {key_id}: give its --fingerprint, if you trust it")
    check_time(key, leaf["recorded_at"], where)


def check_time(key: Fields, recorded_at: str, where: str) -> None:
    """What a key signed was recorded while it was in use."""
    at, until = instant(recorded_at), key.get("valid_until")
    expect(at >= instant(key["valid_from"]) - GRACE, f"{where}: recorded before its key was in use")
    expect(until is None or at <= instant(until) + GRACE, f"{where}: its key was retired by then")
    leaked_at = key.get("leaked_at")
    expect(leaked_at is None or at < instant(leaked_at), f"{where}: its key had leaked by then")


def check_signature(folder: Path, size: int, keys: Keys, receipt_id: str) -> str:
    """The signature of one receipt, by openssl."""
    with (folder / "receipts.jsonl").open("rb") as lines:
        for line in lines:
            envelope = json.loads(line)
            payload = base64.b64decode(envelope["payload"])
            if json.loads(payload)["receipt_id"] == receipt_id:
                signature = envelope["signatures"][0]
                message = b"DSSEv1 %d %b %d %b" % (
                    len(PAYLOAD_TYPE), PAYLOAD_TYPE, len(payload), payload
                )  # fmt: skip
                raw = base64.b64decode(signature["sig"])
                fits = is_signed(keys[signature["keyid"]]["raw"], message, raw)
                expect(fits, f"the signature of receipt {receipt_id} does not fit")
                return f"the signature of receipt {receipt_id} fits"
    raise Broken(f"there is no receipt {receipt_id} among the {size}")


def fingerprint(text: str) -> str:
    """A fingerprint as it was given, if it can be one."""
    if len(text) != 64 or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a fingerprint is 64 characters of 0-9a-f")
    return text


def help_of_openssl() -> bytes:
    """What openssl says it can do with a signature."""
    done = subprocess.run(["openssl", "pkeyutl", "-help"], capture_output=True, check=False)
    return done.stdout + done.stderr


def instant(text: str) -> datetime:
    """RFC 3339, as every file here has it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


def main() -> int:
    """Run every step; the first that does not hold ends it."""
    parser = argparse.ArgumentParser(description="Verify an unpacked archive of a ledger.")
    parser.add_argument("folder", nargs="?", default=".", type=Path)
    parser.add_argument(
        "--fingerprint", action="append", required=True, metavar="SHA256", type=fingerprint
    )
    parser.add_argument("--receipt", action="append", default=[], metavar="ID")
    given = parser.parse_args()
    folder = given.folder
    if shutil.which("openssl") is None or b"rawin" not in help_of_openssl():
        print("cannot verify: openssl 3.0 or later is needed, and was not found")
        return 2
    try:
        print(f"ok  {check_manifest(folder)}")
        origin, keys = trusted_keys(folder, {text.lower() for text in given.fingerprint})
        account_id, size, root, key = check_checkpoint(folder, origin, keys)
        print(
            f"ok  the checkpoint of {account_id} over {size} receipts is signed by {key['key_id']}"
        )
        recorded_at = check_log(folder, account_id, size, root, keys)
        print(f"ok  {size} receipts are complete, in order, and lead to the signed root")
        if recorded_at:
            made_later = dict(key, valid_from="1970-01-01T00:00:00.000000Z")
            check_time(made_later, recorded_at, "the checkpoint")
        for receipt_id in given.receipt:
            print(f"ok  {check_signature(folder, size, keys, receipt_id)}")
    except Broken as fault:
        print(f"BROKEN  {fault}")
        return 1
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        print(f"BROKEN  a file is missing or malformed: {type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
