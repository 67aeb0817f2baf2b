"""Files only their owner may read: reloaded when they change, written whole or not at all."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

from governor.errors import GovernorError, OutageError

T = TypeVar("T")
MIN_CHARS = 8
_MAX_FILE_BYTES = 256 * 1024


class PrivateFiles:
    """Parsed files, remembered for as long as they do not change."""

    def __init__(self) -> None:
        self._cache: dict[Path, tuple[tuple[int, int, int], object]] = {}

    def read(self, path: Path, parse: Callable[[str], T]) -> T:
        """What ``parse`` makes of a file; one file always has one parser.

        Raises:
            OutageError: it cannot be read, or is malformed; names the file and nothing in it.
        """
        try:
            status = path.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            held = self._cache.get(path)
            if held and held[0] == version:
                return held[1]  # type: ignore[return-value]  # the same parser put it there
            if status.st_size > _MAX_FILE_BYTES:
                raise ValueError("too large")
            value = parse(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise unreadable(path, error) from error
        except (GovernorError, ValueError, IndexError, UnsupportedAlgorithm) as error:
            where = f" ({error})" if isinstance(error, SecretError) else ""
            raise OutageError(
                "malformed-secret",
                f"{path} is malformed{where}. Correct it, or restore it from a backup; if there is "
                "none, remove it and start again: a new one is made, which its users then need",
            ) from error
        self._cache[path] = (version, value)
        return value


class SecretError(ValueError):
    """Why a file of secrets cannot be used; may name a line's number, never its content."""


def numbered(text: str) -> list[tuple[int, str]]:
    """The lines of a file that say something, with their numbers; there must be one.

    A line that begins with ``#`` is a comment.
    """
    found = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    found = [(n, line) for n, line in found if not line.startswith("#")]
    if not found:
        raise SecretError("it is empty")
    return found


def lines(text: str) -> list[str]:
    """The lines of a file that say something; there must be one."""
    return [line for _, line in numbered(text)]


def first_line(text: str) -> str:
    """The secret of a file that holds one.

    Raises:
        SecretError: there is none, or what there is has a blank in it, or fewer than 8 characters.
    """
    number, secret = numbered(text)[0]
    if len(secret) < MIN_CHARS or len(secret.split()) > 1:
        raise SecretError(f"line {number} is no secret: at least {MIN_CHARS} characters, no blanks")
    return secret


def write_once(path: Path, make: Callable[[], str]) -> None:
    """Write a new file whole or not at all; a second writer keeps the first one's."""
    if path.exists():
        return
    scratch = _scratch(path, make())
    try:
        with suppress(FileExistsError):
            path.hardlink_to(scratch)
    finally:
        scratch.unlink()


def replace(path: Path, text: str) -> None:
    """Replace a file atomically; a reader sees the old one or the new one, whole."""
    _scratch(path, text).replace(path)


def unreadable(path: Path, error: OSError) -> OutageError:
    """The error for a file that cannot be used; it quotes no content of the file."""
    why = error.strerror or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return OutageError(
            "secret-unreadable",
            f"{path} is not there. ggen up makes it; if it did, set "
            "GGEN_STATE_DIR to the directory of that start",
        )
    return OutageError("secret-unreadable", f"cannot use {path}: {why}. Check its owner and mode")


def _scratch(path: Path, text: str) -> Path:
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    return scratch
