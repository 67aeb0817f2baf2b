"""The archive of a ledger: one file an auditor can take away, made the same way every time.

``receipts.jsonl`` has an envelope a line, in the order of the log; ``tile/`` is the log as
c2sp.org/tlog-tiles lays it out; ``MANIFEST.sha256`` lists every other file. A segment begins where
earlier ones end: ``base.json`` has the tree up to there, ``leaves.jsonl`` a leaf a line. What reads
an archive trusts nothing in it: names, kinds and sizes are bounded before a byte is kept.
"""

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import IO, BinaryIO, Self

from pydantic import ValidationError, model_validator

from governor.errors import InputError
from governor.records import Record
from ledger import canonical, contracts
from ledger.keys import KeyRing
from ledger.log import Hash
from ledger.merkle import Frontier

MANIFEST = "MANIFEST.sha256"
RECEIPTS = "receipts.jsonl"
CHECKPOINT = "checkpoint"
KEYS = "keys.json"
BASE = "base.json"
LEAVES = "leaves.jsonl"
MAX_LINE_BYTES = 2 * 1024 * 1024
"""Longest line of ``receipts.jsonl``: a document of 1 MB in base64, and then some."""

_LEVEL = 6
_CHUNK_BYTES = 1 << 20
_MAX_SMALL_FILE_BYTES = 1 << 20
_MAX_BUNDLE_BYTES = 256 * (2 + 65_535)
_MAX_MEMBERS = 4_000_000
_SAFE_RATIO = 200
_SAFE_BYTES = 64 << 20
_UNREADABLE = (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error, ValueError)
_NUMBER = r"(x\d{3}/)*\d{3}(\.p/[1-9]\d{0,2})?"
_BOUNDS: Mapping[re.Pattern[str], int | None] = {
    re.compile(r"MANIFEST\.sha256"): None,
    re.compile(r"(receipts|leaves)\.jsonl"): None,
    re.compile(r"VERIFY\.md|verify\.py|checkpoint|(keys|base)\.json"): _MAX_SMALL_FILE_BYTES,
    re.compile(r"schema/[a-z_]{1,64}(\.v[1-9]\d?)?\.json"): _MAX_SMALL_FILE_BYTES,
    re.compile(rf"tile/entries/{_NUMBER}"): _MAX_BUNDLE_BYTES,
    re.compile(rf"tile/\d{{1,2}}/{_NUMBER}"): 256 * 32,
}
"""Every name an archive may hold, and how large that file may be."""


def fixed_files(ring: KeyRing) -> dict[str, bytes]:
    """The files that every archive of this version has: how to verify it, and against what."""
    auditor = files("ledger").joinpath("auditor")
    return {
        "VERIFY.md": auditor.joinpath("VERIFY.md").read_bytes(),
        "verify.py": auditor.joinpath("verify.py").read_bytes(),
        KEYS: (ring.model_dump_json(indent=1, exclude_none=True) + "\n").encode(),
        **_schemas(),
    }


@cache
def _schemas() -> dict[str, bytes]:
    return {
        f"schema/{operation}.v{version}.json": (
            json.dumps(schema, indent=1, sort_keys=True) + "\n"
        ).encode()
        for operation, versions in contracts.schemas().items()
        for version, schema in versions.items()
    }


class Base(Record):
    """``base.json``: the tree before a segment's first leaf, by its subtrees, largest first.

    Together with the leaves it leads to the signed root, so that it cannot be another.
    """

    size: int
    nodes: tuple[Hash, ...]

    @model_validator(mode="after")
    def _is_a_tree(self) -> Self:
        if self.size < 1 or len(self.nodes) != self.size.bit_count():
            raise ValueError("not the subtrees of a tree of this size")
        return self

    @classmethod
    def of(cls, tree: Frontier) -> "Base":
        """The base that a tree is."""
        return cls(size=tree.size, nodes=tuple(node.hex() for node in tree.nodes))

    def tree(self) -> Frontier:
        """The tree that is continued."""
        return Frontier(self.size, tuple(map(bytes.fromhex, self.nodes)))

    def text(self) -> bytes:
        """The file's content."""
        return canonical.dumps(self.document()) + b"\n"


def base_of(text: bytes) -> Frontier:
    """The tree that a ``base.json`` states.

    Raises:
        InputError: it states none, or there is another way to write it.
    """
    try:
        base = Base.model_validate_json(text)
    except ValidationError:
        raise InputError("bad-archive", f"{BASE} states no tree") from None
    if base.text() != text:
        raise InputError("bad-archive", f"{BASE} is not written the way it is made")
    return base.tree()


def manifest(digests: Mapping[str, str]) -> bytes:
    """``MANIFEST.sha256``: what ``sha256sum --check`` reads."""
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def check_manifest(text: bytes, digests: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The files that are not as the manifest lists them: name, and fault."""
    listed = {}
    for line in text.decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        listed[name] = digest
    for name in sorted(listed.keys() | digests.keys() - {MANIFEST}):
        if name not in digests:
            yield name, f"is listed in {MANIFEST}, and missing"
        elif name not in listed:
            yield name, f"is not listed in {MANIFEST}"
        elif listed[name] != digests[name]:
            yield name, f"has another SHA-256 than {MANIFEST} lists"
    if manifest(listed) != text:
        yield MANIFEST, "is not written the way it is made"


def write(target: BinaryIO, members: Iterable[tuple[str, int, IO[bytes]]]) -> None:
    """Write a ``tar.gz``: the same members give the same bytes, on any machine at any time."""
    with (
        gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, size_bytes, source in members:
            member = tarfile.TarInfo(name)
            member.size, member.mode = size_bytes, 0o644
            tar.addfile(member, source)


def read(source: BinaryIO, packed_bytes: int) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files of an archive, one after the other: name, and content in pieces.

    Raises:
        InputError: it is no archive of a ledger: a link, a path that leads out of it, a file or
            a whole larger than such an archive has. What was given before is not to be trusted.
        OSError: its file cannot be read; there is no verdict.
    """
    left = max(_SAFE_BYTES, packed_bytes * _SAFE_RATIO)
    seen: set[str] = set()
    try:
        with (
            gzip.GzipFile("", "rb", fileobj=source) as unpacked,
            tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_PlainFile) as tar,
        ):
            for member in tar:
                _check(member, seen)
                left -= member.size
                if left < 0 or len(seen) > _MAX_MEMBERS:
                    raise InputError("bad-archive", "the archive unpacks to far too much; refused")
                content = tar.extractfile(member)
                if content is None:
                    raise InputError("bad-archive", f"{member.name[:200]!r} has no content")
                yield member.name, _pieces(content)
            _check_end(unpacked)
    except _UNREADABLE as error:
        raise InputError("bad-archive", f"not a readable tar.gz: {error}") from error


def sha256_of(pieces: Iterable[bytes]) -> str:
    """The SHA-256 over all pieces, in hex."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


class _PlainFile(tarfile.TarInfo):
    """A member that is a plain file; anything else is refused before its content is read."""

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        # The entry point that a subclass may override, as tarfile's own source says.
        if self.type != tarfile.REGTYPE:
            raise InputError("bad-archive", f"{self.name[:200]!r} is no plain file; refused")
        return super()._proc_member(tar)  # type: ignore[misc,no-any-return]


def _check(member: tarfile.TarInfo, seen: set[str]) -> None:
    name = member.name
    bound = next((b for pattern, b in _BOUNDS.items() if pattern.fullmatch(name)), -1)
    if bound == -1:
        raise InputError("bad-archive", f"{name[:200]!r} is no name of such an archive; refused")
    if bound is not None and member.size > bound:
        raise InputError("bad-archive", f"{name} has {member.size} bytes, at most {bound}; refused")
    if name in seen:
        raise InputError("bad-archive", f"{name} is there twice; refused")
    seen.add(name)


def _check_end(unpacked: gzip.GzipFile) -> None:
    # A tar ends in zeros up to a whole record. Only at the very end is the gzip CRC checked.
    rest = unpacked.read(tarfile.RECORDSIZE)
    if rest.strip(b"\0") or unpacked.read(1):
        raise InputError("bad-archive", "the archive goes on after its end; refused")


def _pieces(content: IO[bytes]) -> Iterator[bytes]:
    try:
        while piece := content.read(_CHUNK_BYTES):
            yield piece
    except _UNREADABLE as error:
        raise InputError("bad-archive", f"not a readable tar.gz: {error}") from error
