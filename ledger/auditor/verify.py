#!/usr/bin/env python3
"""Verify the archive of a ledger with Python's standard library and openssl, and nothing else.

    python3 -I verify.py --fingerprint SHA256 [--account-id ID] [--receipt ID ...] [ARCHIVE ...]

ARCHIVE is the folder the archive was unpacked into (here, if left out), or the .tar.gz itself; give
several segments of one ledger oldest first. A segment alone needs --from N: what comes before it is
not judged. The fingerprint is the SHA-256 of a public key. It must come from somewhere else than
this archive; give one for each key that was in use. --complete takes the ….complete.json that lies
beside an archive. --strict does not accept clocks that were off.

Exit code: 0 everything holds; 1 something does not; 2 wrong options; 5 cannot verify here, nothing
was judged; 7 everything holds but a clock was off (--strict). VERIFY.md has the steps by hand.
"""

import sys

if not sys.flags.isolated:
    del sys.path[0]  # nothing that lies beside this file is to be trusted, or imported

import argparse
import base64
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, Optional, Set, Tuple

PAYLOAD_TYPE = "application/vnd.ggen.receipt.v1+json"
NAMES = re.compile(
    r"MANIFEST\.sha256|(receipts|leaves)\.jsonl|VERIFY\.md|verify\.py|checkpoint|(keys|base)\.json"
    r"|schema/[a-z_]{1,64}(\.v[1-9]\d?)?\.json|tile/(entries|\d{1,2})/(x\d{3}/)*\d{3}(\.p/[1-9]\d{0,2})?"
)
Fields = Dict[str, Any]
Keys = Dict[str, Fields]
AHEAD, BEHIND, GRACE = timedelta(seconds=5), timedelta(seconds=60), timedelta(seconds=60)


class Broken(Exception):
    """Something does not hold; the message says what and where."""


class CannotVerify(Exception):
    """Whatever is wrong is not the archive: nothing was judged."""


def expect(holds: object, fault: str) -> None:
    """Stop with ``fault`` unless it holds."""
    if not holds:
        raise Broken(fault)


def sha256(data: bytes) -> str:
    """SHA-256, in hex."""
    return hashlib.sha256(data).hexdigest()


def shown(text: object) -> str:
    """A text as it may be printed: nothing in it moves a cursor or changes a colour."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def plain(text: str) -> Any:
    """JSON that every reader understands in the same way."""

    def unique(pairs: List[Tuple[str, Any]]) -> Fields:
        expect(len(dict(pairs)) == len(pairs), "a key stands twice in one object")
        return dict(pairs)

    def never(name: str) -> None:
        raise Broken(f"{name} is not JSON")

    def finite(text: str) -> float:
        value = float(text)
        expect(abs(value) != float("inf"), f"{text} is no number a reader of doubles knows")
        return value

    return json.loads(text, object_pairs_hook=unique, parse_constant=never, parse_float=finite)


def number(value: float) -> str:
    """A number as RFC 8785 writes it."""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent and abs(value) >= 1e-6:
        return mantissa
    if exponent and -7 < int(exponent) < 0:
        return f"{value:.{len(mantissa.replace('.', '').strip('-')) - 1 - int(exponent)}f}"
    power = int(exponent or 0)
    return f"{mantissa}e{power:+d}".replace(".0e", "e")


def canonical(value: Any) -> str:
    """Canonical JSON (RFC 8785)."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(key)}:{canonical(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float):
        return number(value)
    return json.dumps(value, ensure_ascii=False)


def exact(text: str, what: str) -> bytes:
    """The bytes of base64 that is written in the only right way."""
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    expect(base64.b64encode(raw).decode() == text and raw, f"{what} is not canonical base64")
    return raw


def instant(text: str) -> datetime:
    """RFC 3339, as every file here has it."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


# -- What the surroundings have to offer


def check_openssl() -> None:
    """Find an openssl that verifies Ed25519 signatures; LibreSSL's does not."""
    if shutil.which("openssl") is None:
        raise CannotVerify("openssl 3.0 or later is needed, and there is none")
    done = subprocess.run(["openssl", "pkeyutl", "-help"], capture_output=True, check=False)
    if b"rawin" not in done.stdout + done.stderr:
        named = subprocess.run(["openssl", "version"], capture_output=True, check=False)
        raise CannotVerify(
            f"openssl 3.0 or later is needed; this is {named.stdout.decode(errors='replace')!r}"
        )


def is_signed(scratch: Path, raw_key: bytes, message: bytes, signature: bytes) -> bool:
    """Ask openssl whether an Ed25519 signature fits."""
    pem = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + raw_key).decode()
    folder = Path(tempfile.mkdtemp(dir=str(scratch)))
    files = {
        "key.pem": f"-----BEGIN PUBLIC KEY-----\n{pem}\n-----END PUBLIC KEY-----\n".encode(),
        "message": message,
        "signature": signature,
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    command = "openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in message -sigfile signature"
    done = subprocess.run(command.split(), cwd=str(folder), capture_output=True, check=False)
    shutil.rmtree(str(folder))
    if done.returncode and b"Verification Failure" not in done.stdout + done.stderr:
        raise CannotVerify(f"openssl failed: {done.stderr.decode(errors='replace')[:300]}")
    return done.returncode == 0


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive where it does no harm; refuse what such an archive never holds."""
    size = archive.stat().st_size
    seen: Set[str] = set()
    with archive.open("rb") as packed, gzip.GzipFile("", "rb", fileobj=packed) as unpacked:
        try:
            with tarfile.open(fileobj=unpacked, mode="r|") as tar:
                for member in tar:
                    name = member.name
                    expect(member.type == tarfile.REGTYPE, f"{name}: is no plain file")
                    expect(NAMES.fullmatch(name), f"{name}: no name of such an archive")
                    expect(name not in seen, f"{name}: is there twice")
                    expect(member.size <= max(64 << 20, size * 200), f"{name}: far too large")
                    seen.add(name)
                    content = tar.extractfile(member)
                    if content is not None:
                        save(folder / name, content)
            rest = unpacked.read(tarfile.RECORDSIZE)
            expect(not rest.strip(b"\0") and not unpacked.read(1), "it goes on after its end")
        except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise Broken(f"not a readable tar.gz: {error}") from None


def save(path: Path, content: IO[bytes]) -> None:
    """Write a file; where that cannot be done the archive is not to blame."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            shutil.copyfileobj(content, file, 1 << 20)
    except (gzip.BadGzipFile, EOFError):
        raise
    except OSError as error:
        raise CannotVerify(f"cannot unpack into {path.parent}: {error.strerror}") from None


# -- The steps


def check_checkpoint(
    note: str, scratch: Path, keys: Keys, account_id: Optional[str]
) -> Tuple[str, int, bytes, Fields]:
    """The checkpoint is signed by a trusted key; account, size, root, key."""
    lines = note.split("\n")
    expect(len(lines) == 6 and not lines[5] and not lines[3], "the checkpoint has not five lines")
    name, size, root = lines[:3]
    expect(re.fullmatch(r"0|[1-9][0-9]{0,18}", size), "the checkpoint's size is no number")
    expect(re.fullmatch(r"[^\s+]+", name), "the checkpoint's name is none")
    expect(len(exact(root, "the root")) == 32, "the root has not 32 bytes")
    parts = lines[4].split(" ")
    expect(len(parts) == 3 and parts[0] == "\u2014", "the checkpoint's last line is no signature")
    expect(parts[1] == name, "the checkpoint is signed in another name")
    raw = exact(parts[2], "the checkpoint's signature")
    message = "\n".join([*lines[:3], ""]).encode()
    for key in keys.values():
        named = name.encode() + b"\n\x01" + key["raw"]
        if raw[:4] == hashlib.sha256(named).digest()[:4]:
            fits = is_signed(scratch, key["raw"], message, raw[4:])
            expect(fits, "the checkpoint's signature does not fit")
            origin, _, account = name.rpartition("/")
            expect(origin == key["origin"], f"the checkpoint is of {name}, not of {key['origin']}")
            wanted = account_id or account
            expect(account == wanted, f"this is the ledger of account {account}, not of {wanted}")
            return account, int(size), exact(root, "the root"), key
    raise Broken("the checkpoint is signed by no key whose fingerprint you trust")


def trusted_keys(text: bytes, fingerprints: Set[str]) -> Keys:
    """The keys of a key file whose fingerprints you brought."""
    try:
        return named_keys(plain(text.decode("utf-8")), fingerprints)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise Broken(f"keys.json is malformed: {type(error).__name__}: {error}") from None


def named_keys(listed: Fields, fingerprints: Set[str]) -> Keys:
    """The keys of a key file whose fingerprints you brought, by their ids."""
    keys: Keys = {}
    for key in listed["keys"]:
        raw = base64.b64decode(key["public_key"], validate=True)
        is_well = len(raw) == 32 and sha256(raw)[:32] == key["key_id"]
        expect(is_well, "keys.json: a key is malformed")
        if sha256(raw) in fingerprints:
            for name in ("valid_from", "valid_until", "leaked_at"):
                if key.get(name) is not None:
                    instant(key[name])
            keys[key["key_id"]] = dict(key, raw=raw, origin=listed["origin"])
    expect(keys, "none of the fingerprints you trust is that of a key in keys.json")
    return keys


def check_manifest(folder: Path) -> str:
    """Every file is listed with its SHA-256, and every file that is listed is there."""
    text = read(folder / "MANIFEST.sha256").decode("utf-8")
    listed: Dict[str, str] = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    made = "".join(f"{listed[name]}  {name}\n" for name in sorted(listed))
    expect(made == text, "MANIFEST.sha256 is not written the way it is made")
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not is_folder(p)}
    there.discard("MANIFEST.sha256")
    for name in sorted(there | set(listed)):
        expect(name in there, f"{name} is listed in MANIFEST.sha256, and missing")
        expect(name in listed, f"{name} is not listed in MANIFEST.sha256")
        expect(NAMES.fullmatch(name), f"{name}: no name of such an archive")
        found = hashlib.sha256()
        with (folder / name).open("rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                found.update(piece)
        expect(found.hexdigest() == listed[name], f"{name} has another SHA-256 than listed")
    return f"{len(there)} files are as MANIFEST.sha256 lists them"


def is_folder(path: Path) -> bool:
    """Whether it is a folder itself, and no link to one."""
    expect(not path.is_symlink(), f"{path.name} is a link")
    return path.is_dir()


def read(path: Path) -> bytes:
    """A small file of the archive, which has to be there."""
    expect(path.is_file(), f"{path.name} is missing")
    return path.read_bytes()


def listed(folder: Path) -> Iterator[bytes]:
    """The leaves of a segment, a line each."""
    expect((folder / "leaves.jsonl").is_file(), "leaves.jsonl is missing")
    with (folder / "leaves.jsonl").open("rb") as lines:
        for line in lines:
            expect(line.endswith(b"\n"), "leaves.jsonl has a line without an end")
            yield line[:-1]


def entries(folder: Path, size: int) -> Iterator[bytes]:
    """The leaves in order, out of the entry bundles."""
    for bundle_number in range((size + 255) // 256):
        width = min(256, size - bundle_number * 256)
        path = folder / "tile/entries" / tile_name(bundle_number, width)
        expect(path.is_file(), f"{path.relative_to(folder)} is missing")
        bundle, at = path.read_bytes(), 0
        for index in range(width):
            length = int.from_bytes(bundle[at : at + 2], "big")
            leaf = bundle[at + 2 : at + 2 + length]
            expect(leaf and len(leaf) == length, f"leaf {bundle_number * 256 + index} is cut off")
            yield leaf
            at += 2 + length
        expect(at == len(bundle), f"{path.relative_to(folder)} holds more than {width} leaves")


def tile_name(tile_number: int, width: int) -> str:
    """The path of a tile or bundle in its level (c2sp.org/tlog-tiles)."""
    groups = [f"{tile_number % 1000:03d}"]
    while tile_number >= 1000:
        tile_number //= 1000
        groups.insert(0, f"x{tile_number % 1000:03d}")
    return "/".join(groups) + ("" if width == 256 else f".p/{width}")


class Ledger:
    """A ledger as far as its archives were read, one after the other."""

    def __init__(self, size: int, levels: List[Optional[bytes]]) -> None:
        self.size, self.levels, self.is_whole = size, levels, size == 0
        self.recorded_at = ""
        self.ids: List[str] = []
        self.seen: Set[str] = set()
        self.off: List[float] = []
        self.ends: Dict[str, int] = {}
        self.counted: Set[str] = set()
        self.over: Set[str] = set()
        self.in_flight: Dict[str, int] = {}

    def root(self) -> bytes:
        """The root over all leaves."""
        found: Optional[bytes] = None
        for node in self.levels:
            if node is not None:
                found = node if found is None else hashlib.sha256(b"\x01" + node + found).digest()
        return found or hashlib.sha256().digest()

    def append(self, node: bytes) -> None:
        """Append a leaf's hash to the right edge of the tree (RFC 6962)."""
        self.size += 1
        for level, left in enumerate(self.levels):
            if left is None:
                self.levels[level] = node
                return
            node, self.levels[level] = hashlib.sha256(b"\x01" + left + node).digest(), None
        self.levels.append(node)

    def count(self, fields: Fields, where: str) -> None:
        """What was in flight has ended, all that was accepted has, and nothing after the end."""
        operation = fields["operation"]
        whose = str(fields.get("entitlement_id") or fields.get("sku_id"))
        if operation == "entitlement_active":
            self.over.discard(whose)
        elif operation in ("action_complete", "action_failed", "action_timeout"):
            self.ends[whose] = self.ends.get(whose, 0) + 1
            expect(whose not in self.over, f"{where}: ends an action after the end of {whose}")
        elif operation == "decommission_start" and "run_id" in fields:
            self.in_flight[fields["run_id"]] = fields["in_flight_actions"]
        elif operation == "decommission_complete" and "run_id" in fields:
            self.close(fields, whose, where)

    def close(self, fields: Fields, whose: str, where: str) -> None:
        """Hold the counts of an end against what was counted up to there."""
        halves = ("actions_completed", "actions_failed", "actions_timed_out")
        ended, began = (
            sum(fields[name] for name in halves),
            self.in_flight.pop(fields["run_id"], None),
        )
        expect(
            began is not None or not self.is_whole, f"{where}: its decommission_start is missing"
        )
        expect(began in (None, ended), f"{where}: {began} actions were in flight, {ended} ended")
        accepted, found = fields.get("actions_accepted"), self.ends.pop(whose, 0)
        if self.is_whole or whose in self.counted:
            fault = f"{where}: {accepted} actions were accepted, {found} have an end here"
            expect(accepted in (None, found), fault)
        self.counted.add(whose)
        self.over.add(whose)


def base_of(folder: Path) -> Ledger:
    """The tree before a segment's first leaf; an empty one where the archive begins the ledger."""
    if not (folder / "base.json").is_file():
        return Ledger(0, [])
    text = read(folder / "base.json").decode("utf-8")
    base = plain(text)
    expect(canonical(base) + "\n" == text, "base.json is not written the way it is made")
    size, nodes = base["size"], [bytes.fromhex(node) for node in base["nodes"]]
    is_tree = set(base) == {"size", "nodes"} and size > 0 and bin(size).count("1") == len(nodes)
    expect(is_tree and all(len(node) == 32 for node in nodes), "base.json states no tree")
    levels = [nodes.pop() if size >> level & 1 else None for level in range(size.bit_length())]
    return Ledger(size, levels)


def check_log(
    folder: Path, scratch: Path, account_id: str, size: int, keys: Keys, ledger: Ledger
) -> None:
    """Every receipt is what its leaf says, and every leaf is in its place."""
    expect((folder / "receipts.jsonl").is_file(), "receipts.jsonl is missing")
    hashes: List[bytes] = []
    schemas: Dict[str, Fields] = {}
    is_segment = (folder / "base.json").is_file()
    with (folder / "receipts.jsonl").open("rb") as lines, ThreadPoolExecutor(4) as pool:
        asked = []
        for text in listed(folder) if is_segment else entries(folder, size):
            leaf = plain(text.decode("utf-8"))
            where = f"receipt {leaf['receipt_id']} (leaf {ledger.size})"
            check_leaf(leaf, text, account_id, ledger, where)
            line = lines.readline()
            expect(line.endswith(b"\n"), f"{where}: its line has no end")
            fields, off = check_receipt(folder, leaf, line[:-1], keys, schemas)
            ledger.off.append(off)
            ledger.count(fields, where)
            asked.append(pool.submit(check_signature, scratch, where, line[:-1], keys))
            if len(asked) == 64:
                settle(asked)
            ledger.ids.append(leaf["receipt_id"])
            hashes.append(hashlib.sha256(b"\x00" + text).digest())
            ledger.append(hashes[-1])
            ledger.recorded_at = leaf["recorded_at"]
        settle(asked)
        expect(not lines.readline(), f"receipts.jsonl holds more than the {size} receipts sealed")
    check_tiles(folder, [] if is_segment else hashes)
    expect(is_segment or not (folder / "leaves.jsonl").exists(), "leaves.jsonl has no base.json")
    for receipt_id in ledger.ids[len(ledger.seen) :]:
        expect(receipt_id not in ledger.seen, f"receipt {receipt_id} is in the log twice")
        ledger.seen.add(receipt_id)


def check_leaf(leaf: Fields, text: bytes, account_id: str, ledger: Ledger, where: str) -> None:
    """A leaf is one, of this account, and in its place."""
    expect(canonical(leaf).encode() == text, f"{where}: the leaf is not canonical JSON")
    form = {"account_id", "envelope_sha256", "index", "receipt_id", "recorded_at", "v"}
    expect(set(leaf) - {"rejected"} == form, f"{where}: the leaf has other fields")
    expect(leaf["account_id"] == account_id, f"{where}: of account {leaf['account_id']}")
    expect(leaf["index"] == ledger.size, f"{where}: says that it is leaf {leaf['index']}")
    expect(leaf["recorded_at"] >= ledger.recorded_at, f"{where}: recorded before the one before")


def settle(asked: List[Any]) -> None:
    """Wait for signatures that are being checked."""
    for each in asked:
        each.result()
    asked.clear()


def check_tiles(folder: Path, hashes: List[bytes]) -> None:
    """The tiles hold the hashes of the leaves and of the trees over them, and nothing else."""
    made: Dict[str, bytes] = {}
    size = len(hashes)
    for number_ in range((size + 255) // 256):
        made[f"tile/entries/{tile_name(number_, min(256, size - number_ * 256))}"] = b""
    level = 0
    while hashes:
        above = []
        for at in range(0, len(hashes), 256):
            tile = hashes[at : at + 256]
            made[f"tile/{level}/{tile_name(at // 256, len(tile))}"] = b"".join(tile)
            if len(tile) == 256:
                while len(tile) > 1:
                    pairs = zip(tile[::2], tile[1::2])
                    tile = [hashlib.sha256(b"\x01" + a + b).digest() for a, b in pairs]
                above.append(tile[0])
        hashes, level = above, level + 1
    for name, content in made.items():
        expect((folder / name).is_file(), f"{name} is missing")
        is_same = not content or (folder / name).read_bytes() == content
        expect(is_same, f"{name} is not that of the leaves")
    for path in (folder / "tile").rglob("*"):
        name = path.relative_to(folder).as_posix()
        expect(path.is_dir() or name in made, f"{name} belongs to no tree of this size")


def check_receipt(
    folder: Path, leaf: Fields, text: bytes, keys: Keys, schemas: Dict[str, Fields]
) -> Tuple[Fields, float]:
    """What a receipt says fits leaf, contract and key; it, and how far its clock was off, in s."""
    where = f"receipt {leaf['receipt_id']} (leaf {leaf['index']})"
    expect(sha256(text) == leaf["envelope_sha256"], f"{where}: not what was sealed")
    expect("rejected" not in leaf, f"{where}: was no receipt: {leaf.get('rejected')}")
    line = text.decode("utf-8")
    envelope = plain(line)
    signature = envelope["signatures"][0]
    form = {
        "payload": envelope["payload"],
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"keyid": signature["keyid"], "sig": signature["sig"]}],
    }
    expect(canonical(form) == line, f"{where}: not the canonical form of its envelope")
    payload = exact(envelope["payload"], f"{where}: its payload").decode("utf-8")
    fields = plain(payload)
    for name in ("account_id", "receipt_id"):
        expect(fields.get(name) == leaf[name], f"{where}: its {name} is {fields.get(name)}")
    expect(canonical(fields) == payload, f"{where}: the signed text is not canonical JSON")
    schema = schema_of(folder, fields, where, schemas)
    fault = breach(fields, schema, schema)
    expect(not fault, f"{where}: {fault}")
    key = keys.get(signature["keyid"])
    if key is None:
        raise Broken(
            f"{where}: is signed by key {signature['keyid']}: give its --fingerprint, if "
            "you trust it"
        )
    check_time(key, leaf["recorded_at"], where)
    behind = instant(leaf["recorded_at"]) - instant(fields["timestamp"])
    is_late = behind > BEHIND and fields.get("spooled") is not True  # its store was away
    return fields, abs(behind.total_seconds()) if is_late or behind < -AHEAD else 0.0


def schema_of(folder: Path, fields: Fields, where: str, schemas: Dict[str, Fields]) -> Fields:
    """The JSON Schema of a receipt's operation and version."""
    name = f"{fields.get('operation')}.v{fields.get('contract_version', 1)}"
    if name not in schemas:
        path = folder / "schema" / f"{name}.json"
        if name.endswith(".v1") and not path.is_file():
            path = folder / "schema" / f"{name[:-3]}.json"  # an archive made by release 0.1.0
        is_known = name.replace(".", "_").isidentifier() and path.is_file()
        expect(is_known, f"{where}: unknown operation or version {name[:80]}")
        schemas[name] = plain(path.read_bytes().decode("utf-8"))
        expect(isinstance(schemas[name].get("required"), list), f"{path.name} is no schema")
    return schemas[name]


def breach(value: Any, schema: Fields, root: Fields, at: str = "receipt") -> str:
    """Why a value does not fulfil a schema (what these schemas use of draft 2020-12)."""
    if "$ref" in schema:
        return breach(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root, at)
    if "anyOf" in schema:
        faults = [breach(value, each, root, at) for each in schema["anyOf"]]
        return "" if "" in faults else faults[0]
    kinds: Dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "object": dict,
        "array": list,
        "null": type(None),
    }
    kind = schema.get("type")
    is_bool = isinstance(value, bool)
    if kind and (not isinstance(value, kinds[kind]) or (is_bool and kind != "boolean")):
        return f"{at} is no {kind}"
    if "const" in schema and value != schema["const"]:
        return f"{at} is not {schema['const']}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at} is none of {schema['enum']}"
    if isinstance(value, str):
        is_fit = schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", len(value))
        if not is_fit or not re.search(schema.get("pattern", ""), value):
            return f"{at} is out of bounds"
    elif isinstance(value, (int, float)) and not is_bool:
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            return f"{at} is out of bounds"
    elif isinstance(value, list):
        faults = [
            breach(e, schema.get("items", {}), root, f"{at}.{n}") for n, e in enumerate(value)
        ]
        return next(filter(None, faults), "")
    elif isinstance(value, dict):
        return breach_of_object(value, schema, root, at)
    return ""


def breach_of_object(value: Fields, schema: Fields, root: Fields, at: str) -> str:
    """Why an object does not fulfil a schema."""
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{at} lacks {', '.join(missing)}"
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for name, each in value.items():
        if name not in known and others is False:
            return f"{at} has a field {name} that its contract does not know"
        one = known.get(name, others if isinstance(others, dict) else {})
        fault = breach(each, one, root, name) or breach(
            name, schema.get("propertyNames", {}), root, f"{at}'s {name}"
        )
        if fault:
            return fault
    return ""


def check_time(key: Fields, recorded_at: str, where: str) -> None:
    """What a key signed was recorded while it was in use."""
    at, until = instant(recorded_at), key.get("valid_until")
    expect(at + GRACE >= instant(key["valid_from"]), f"{where}: recorded before its key was in use")
    expect(until is None or at - GRACE <= instant(until), f"{where}: its key was retired by then")
    leaked_at = key.get("leaked_at")
    expect(leaked_at is None or at < instant(leaked_at), f"{where}: its key had leaked by then")


def check_signature(scratch: Path, where: str, line: bytes, keys: Keys) -> None:
    """The signature of one receipt, by openssl (DSSE: type and text, each with its length)."""
    envelope = json.loads(line)
    payload, signature = base64.b64decode(envelope["payload"]), envelope["signatures"][0]
    kind = PAYLOAD_TYPE.encode()
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    raw = exact(signature["sig"], f"{where}: its signature")
    fits = is_signed(scratch, keys[signature["keyid"]]["raw"], message, raw)
    expect(fits, f"{where}: its signature does not fit")


def fingerprint(text: str) -> str:
    """A fingerprint as it was given, if it can be one."""
    if len(text) != 64 or set(text.lower()) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("a fingerprint is 64 characters of 0-9a-f")
    return text.lower()


def options(words: Optional[List[str]]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description="Verify an archive of a ledger.")
    parser.add_argument("archive", nargs="*", type=Path)
    parser.add_argument(
        "--fingerprint", action="append", required=True, metavar="SHA256", type=fingerprint
    )
    parser.add_argument("--account-id", metavar="ID", help="whose ledger it has to be")
    parser.add_argument(
        "--from", dest="first", default=0, type=int, metavar="N", help="where a segment begins"
    )
    parser.add_argument("--receipt", action="append", default=[], metavar="ID")
    parser.add_argument(
        "--complete", metavar="FILE", type=Path, help="the ….complete.json beside it"
    )
    parser.add_argument("--strict", action="store_true", help="exit 7 where a clock was off")
    return parser.parse_args(words)


def verify(given: argparse.Namespace, scratch: Path) -> int:
    """Run every step; the first that does not hold ends it."""
    ledger: Optional[Ledger] = None
    account_id, first = given.account_id, given.first
    archives = given.archive or [Path(".")]
    for number_, archive in enumerate(archives):
        folder = archive
        if not folder.exists():
            raise CannotVerify(f"there is no {folder}")
        if folder.is_file():
            folder = scratch / f"unpacked{number_}"
            folder.mkdir()
            unpack(archive, folder)
        # Nothing is believed, and nothing judged, before the checkpoint's signature was.
        keys = trusted_keys(read(folder / "keys.json"), set(given.fingerprint))
        note = read(folder / "checkpoint").decode("utf-8")
        account_id, size, root, key = check_checkpoint(note, scratch, keys, account_id)
        of = f"the checkpoint of {account_id} over {size} receipts"
        tell(f"ok  {of} is signed by {key['key_id']}")
        tell(f"ok  {check_manifest(folder)}")
        base = base_of(folder)
        begins = base.size
        if ledger is None:
            expect(begins == first, f"it begins at receipt {begins}, not {first}: see --from")
            ledger = base
        goes_on = (ledger.size, ledger.root()) == (begins, base.root())
        expect(goes_on, f"{archive.name} does not go on from what is before it")
        check_log(folder, scratch, account_id, size, keys, ledger)
        expect(ledger.size == size, f"there are {ledger.size} leaves, and {size} were signed")
        expect(not begins or size > begins, "leaves.jsonl has no leaf")
        expect(ledger.root() == root, "the leaves do not lead to the signed root")
        if ledger.recorded_at:
            made_later = dict(key, valid_from="1970-01-01T00:00:00.000000Z")
            check_time(made_later, ledger.recorded_at, "the checkpoint")
        which = f"receipts {begins} to {size}" if begins else f"{size} receipts"
        tell(f"ok  {which} are complete, signed, in order, and lead to the signed root")
    if ledger is None:
        raise CannotVerify("no archive was given")
    if given.complete:
        check_complete(given, folder, scratch, account_id, (size, root), ledger)
    for receipt_id in given.receipt:
        expect(receipt_id in ledger.seen, f"there is no receipt {receipt_id} among the {size}")
        at = first + ledger.ids.index(receipt_id)
        tell(f"ok  receipt {receipt_id} is leaf {at}; its signature fits")
    if first:
        tell(f"note  nothing before receipt {first} was judged")
    late = [seconds for seconds in ledger.off if seconds]
    if late:
        tell(f"valid, clock off by up to {max(late):.0f} s in {len(late)} receipts")
        return 7 if given.strict else 0
    tell("valid")
    return 0


# -- The receipt beside an archive


def check_complete(
    given: argparse.Namespace,
    folder: Path,
    scratch: Path,
    account_id: str,
    archived: Tuple[int, bytes],
    ledger: Ledger,
) -> None:
    """The receipt of the end is signed, is in the log past the archive, and speaks of it."""
    told = plain(read(given.complete).decode("utf-8"))
    keys = trusted_keys(canonical(told["keys"]).encode(), set(given.fingerprint))
    where = f"{given.complete.name}"
    text, line = told["leaf"].encode(), canonical(told["receipt"]).encode()
    leaf = plain(told["leaf"])
    expect(canonical(leaf).encode() == text, f"{where}: its leaf is not canonical JSON")
    expect(leaf["account_id"] == account_id, f"{where}: of account {leaf['account_id']}")
    fields, _ = check_receipt(folder, leaf, line, keys, {})
    check_signature(scratch, where, line, keys)
    _, size, root, _ = check_checkpoint(told["checkpoint"], scratch, keys, account_id)
    expect(leaf["index"] >= archived[0], f"{where}: is in the log before the archive's end")
    node, path = hashlib.sha256(b"\x00" + text).digest(), unhexed(told["inclusion_proof"])
    is_in = leaf["index"] < size and climb(leaf["index"], size - 1, node, node, path)[1] == root
    expect(is_in, f"{where}: is not in the tree of its checkpoint")
    expect(told["archived_size"] == archived[0], f"{where}: proves the growth of another archive")
    proof = unhexed(told["consistency_proof"])
    goes_on = is_extended(archived, (size, root), proof)
    expect(goes_on, f"{where}: its checkpoint does not go on from the archive")
    ledger.count(fields, where)
    digests = [*(each["archive_sha256"] for each in fields.get("segments", ()))]
    digests.append(fields["archive_sha256"])
    is_this = fields["operation"] == "decommission_complete" and (
        fields["checkpoint_size"],
        fields["checkpoint_root"],
    ) == (archived[0], archived[1].hex())
    expect(is_this, f"{where}: of another archive")
    for path, digest in zip(reversed(given.archive), reversed(digests)):
        is_same = path.is_dir() or file_sha256(path) == digest
        expect(is_same, f"{where}: {path.name} is not the archive it names")
        if path.is_dir():
            tell(f"note  {path.name} is a folder: the digest of its archive was not compared")
    tell(f"ok  {where} ends {fields['entitlement_id']}, and speaks of this archive")


def unhexed(nodes: List[str]) -> List[bytes]:
    """The hashes of a proof."""
    found = [bytes.fromhex(node) for node in nodes]
    expect(all(len(node) == 32 for node in found), "a proof has a node that is no hash")
    return found


def climb(
    position: int, last: int, old: bytes, new: bytes, path: List[bytes]
) -> Tuple[bytes, bytes]:
    """Two roots that a proof leads to: of the tree that ends here, and of the whole one."""
    for sibling in path:
        while position == last and not position & 1 and position:
            position, last = position >> 1, last >> 1
        expect(last, "a proof goes on above the root")
        if position & 1:
            old = hashlib.sha256(b"\x01" + sibling + old).digest()
            new = hashlib.sha256(b"\x01" + sibling + new).digest()
        else:
            new = hashlib.sha256(b"\x01" + new + sibling).digest()
        position, last = position >> 1, last >> 1
    while position == last and not position & 1 and position:
        position, last = position >> 1, last >> 1
    expect(last == 0, "a proof ends below the root")
    return old, new


def is_extended(old: Tuple[int, bytes], new: Tuple[int, bytes], proof: List[bytes]) -> bool:
    """Whether the second tree begins with the first one (RFC 9162, 2.1.4.2)."""
    if old[0] == new[0]:
        return not proof and old == new
    expect(0 < old[0] < new[0], "its checkpoint is older than the archive")
    position, last = old[0] - 1, new[0] - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    first, rest = (proof[0], proof[1:]) if old[0] & (old[0] - 1) else (old[1], proof)
    return climb(position, last, first, first, rest) == (old[1], new[1])


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file of any size."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            found.update(piece)
    return found.hexdigest()


def tell(line: str) -> None:
    """Print a line; a reader that has seen enough changes no verdict."""
    try:
        print(shown(line), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        raise CannotVerify(f"cannot print the verdict: {error.strerror}") from None


def main(words: Optional[List[str]] = None) -> int:
    """Verify, and say so; the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    given = options(words)
    try:
        check_openssl()
        with tempfile.TemporaryDirectory() as scratch:
            try:
                return verify(given, Path(scratch))
            except Broken as fault:
                tell(f"BROKEN  {fault}")
            except (
                ValueError,
                LookupError,
                TypeError,
                AttributeError,
                ArithmeticError,
                re.error,
            ) as error:
                tell(f"BROKEN  a file is malformed: {type(error).__name__}: {error}")
            except RecursionError:
                tell("BROKEN  a file is malformed: nested too deeply")
            return 1
    except CannotVerify as why:
        code, words_ = 5, f"cannot verify here: {why}"
    except (OSError, MemoryError) as error:
        code, words_ = 5, f"cannot verify here: {type(error).__name__}: {error}"
    try:
        print(shown(words_), file=sys.stderr, flush=True)
    except OSError:
        pass
    return code


if __name__ == "__main__":
    result = main()
    try:
        sys.stdout.flush()
    except OSError:
        pass
    os._exit(result)  # nothing that is left to be written may change the verdict
