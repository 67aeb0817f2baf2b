"""Objects in a directory: create-only, atomic, fsynced."""

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from adapters.rules import check_name
from governor.errors import ConflictError, OutageError

_SCRATCH = ".scratch"


class DirectoryObjects:
    """See ``ports.objects.Objects`` for what it promises."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def create(self, name: str, content: bytes) -> bool:
        target = self._path(name)
        try:
            return self._create(target, name, content)
        except OSError as error:
            raise _outage(error) from error

    def get(self, name: str, most: int | None = None) -> bytes | None:
        try:
            with self._path(name).open("rb") as file:
                return file.read(most)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _outage(error) from error

    def names(self, prefix: str) -> Iterator[str]:
        folder = self._root / prefix.rpartition("/")[0]
        try:
            found = sorted(
                str(path.relative_to(self._root)) for path in folder.rglob("*") if path.is_file()
            )
        except FileNotFoundError:
            return
        except OSError as error:
            raise _outage(error) from error
        yield from (n for n in found if n.startswith(prefix) and not n.startswith(_SCRATCH))

    def address(self, name: str) -> str:
        return self._path(name).absolute().as_uri()

    def delete(self, name: str) -> None:
        target = self._path(name)
        try:
            target.unlink(missing_ok=True)
            if target.parent.exists():
                _sync_directory(target.parent)
        except OSError as error:
            raise _outage(error) from error

    def _create(self, target: Path, name: str, content: bytes) -> bool:
        scratch = self._root / _SCRATCH / secrets.token_hex(16)
        for folder in (scratch.parent, target.parent):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        try:
            # link, not rename: it fails when the name is taken, and only then is it visible.
            target.hardlink_to(scratch)
        except FileExistsError:
            _same_or_conflict(target, name, content)
            return False
        finally:
            scratch.unlink()
        for folder in (target.parent, *target.parent.parents):
            _sync_directory(folder)
            if folder == self._root:
                break
        return True

    def _path(self, name: str) -> Path:
        return self._root / check_name(name)


def _same_or_conflict(target: Path, name: str, content: bytes) -> None:
    there = hashlib.sha256(target.read_bytes()).hexdigest()
    if there != hashlib.sha256(content).hexdigest():
        raise ConflictError(
            "object-exists",
            f"{name} exists with other content (SHA-256 {there[:12]}…) and was kept as it is; "
            "what changed needs a new version",
        )


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _outage(error: OSError) -> OutageError:
    return OutageError("objects-unavailable", f"object directory: {error.strerror or error}", 2)
