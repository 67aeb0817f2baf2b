"""A copy on disk: ``documents.db``, the folders of objects, and a manifest of every file."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from governor.errors import InputError

DOCUMENTS = "documents.db"
MANIFEST = "manifest.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a copy holds. ``ledgers`` has the newest seal and the receipts sealed, by account.

    ``broken`` ledgers were copied as they are. ``not_copied`` objects lie in a bucket.
    """

    version: str
    made_at: str
    ledger_origin: str
    ledgers: dict[str, dict[str, int]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    not_copied: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write it, durably."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"
        with (folder / MANIFEST).open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())


def read(folder: Path) -> tuple[Manifest, str]:
    """The manifest of a copy and its SHA-256, once every file is found to be what it names.

    Raises:
        InputError: it is no copy, one of another format, or a file of it is missing or changed.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
        told: dict[str, Any] = json.loads(text)
        manifest = Manifest(**told)
    except (OSError, ValueError, TypeError) as error:
        raise InputError("no-copy", f"{folder} is no copy of ggen backup: {error}") from None
    if manifest.format != FORMAT:
        raise InputError(
            "other-format", f"{folder} has format {manifest.format}; this version reads {FORMAT}"
        )
    there = {name: path for name, path in files(folder) if name != MANIFEST}
    for name in sorted(there.keys() ^ manifest.files.keys()):
        raise InputError("copy-changed", f"{folder}: {name} is missing, or was added")
    for name, path in there.items():
        if digest(path) != manifest.files[name]:
            raise InputError("copy-changed", f"{folder}: {name} was changed; use another copy")
    return manifest, hashlib.sha256(text).hexdigest()


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below a folder, by its name there."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, target: Path) -> bool:
    """Copy one file, durably; False where it is gone, or ``target`` is there already."""
    if target.exists():
        return False
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = target.with_name(f"{target.name}.part")
    try:
        shutil.copyfile(source, part)
    except FileNotFoundError:
        part.unlink(missing_ok=True)
        return False
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(target)
    return True


def sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
