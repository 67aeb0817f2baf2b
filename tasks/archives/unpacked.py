"""The files of an archive where they were unpacked: as they were packed, and no others.

No signature covers them, so that their agreement shows care, and the log's own root shows truth.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from governor.errors import InputError, OutageError
from ledger import archive, contracts
from ledger.keys import KeyRing
from ledger.verify import Check, Finding


def unpack(path: Path, folder: Path) -> dict[str, str]:
    """Write the files of an archive below ``folder``; the SHA-256 of each."""
    digests = {}
    try:
        with path.open("rb") as source:
            for name, pieces in archive.read(source, path.stat().st_size):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    digests[name] = archive.sha256_of(_kept(pieces, file.write))
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise InputError("bad-archive", "one name in it is a file and a folder") from None
    except OSError as error:
        raise OutageError(
            "cannot-verify",
            f"cannot verify here: {path.name} cannot be read, or unpacked below "
            f"{folder.parent}: {error.strerror}. Nothing was judged; give it room (TMPDIR)",
        ) from None
    return digests


def _kept(pieces: Iterator[bytes], write: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        write(piece)
        yield piece


def check_files(folder: Path, digests: dict[str, str]) -> Iterator[Finding]:
    """Whether the files are those that the manifest lists."""
    if archive.MANIFEST not in digests:
        yield Finding(archive.MANIFEST, Check.COMPLETENESS, "is missing")
        return
    expected = archive.manifest({n: d for n, d in digests.items() if n != archive.MANIFEST})
    with (folder / archive.MANIFEST).open("rb") as file:
        text = file.read(2 * len(expected))  # of a longer one the rest says nothing new
    for name, fault in archive.check_manifest(text, digests) if text != expected else ():
        yield Finding(name, Check.IMMUTABILITY, fault)


def check_schemas(
    folder: Path, digests: dict[str, str], used: set[tuple[str, int]]
) -> Iterator[Finding]:
    """Whether an auditor without this program finds the contracts, and no stricter ones."""
    for operation, number in sorted(used):
        names = {f"schema/{operation}.v{number}.json"}
        names |= {f"schema/{operation}.json"} if number == 1 else set()
        if not names & digests.keys():
            yield Finding(min(names), Check.COMPLETENESS, "is missing")
    for name in digests:
        if not name.startswith("schema/"):
            continue
        operation, _, version = name[len("schema/") : -len(".json")].partition(".v")
        model = contracts.VERSIONS.get(operation, {}).get(int(version or 1))
        try:
            found = _meaning(json.loads((folder / name).read_bytes()))
        except (ValueError, RecursionError):
            found = None
        if model and found != _meaning(model.model_json_schema()):
            yield Finding(name, Check.COMPLETENESS, "is not the contract of these receipts")


def _meaning(schema: Any) -> Any:
    """A JSON Schema without its words, which differ between releases."""
    if isinstance(schema, dict):
        named = {k: _meaning(v) for k, v in schema.items() if k not in ("title", "description")}
        if isinstance(schema.get("properties"), dict):  # where a name is a member's, no word
            named["properties"] = {k: _meaning(v) for k, v in schema["properties"].items()}
        return named
    return [_meaning(each) for each in schema] if isinstance(schema, list) else schema


def notes(folder: Path, digests: dict[str, str], ring: KeyRing) -> Iterator[str]:
    """What no signature covers and differs from what this version would have packed."""
    for name, content in archive.fixed_files(ring).items():
        if name not in digests:
            yield f"{name} is not in it"
        elif (folder / name).read_bytes() != content:
            yield f"{name} differs from this version's, and no signature covers it"
