"""The logs of all programs, read as one.

Each program has a file of its own, which supervisord rotates.
"""

import heapq
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from config.settings import Settings

_TAIL_BYTES = 1 << 20
"""How much of each file is looked at for its last lines."""

_OURS = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z ")
_OTHERS = (
    (re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) "), "%Y-%m-%d %H:%M:%S"),  # supervisord
    (re.compile(r"\d+:\w (\d\d \w{3} \d{4} \d\d:\d\d:\d\d)\.(\d{3}) "), "%d %b %Y %H:%M:%S"),
)  # the second is Valkey's; both tell local time


class _Place(NamedTuple):
    """How far a file was read."""

    file: int
    offset: int


class Logs:
    """The lines of every program, or of one, in the order of their times."""

    def __init__(self, settings: Settings, program: str | None = None) -> None:
        self._folder = settings.log_dir
        self._name = f"{program or '*'}.log"
        self._places: dict[Path, _Place] = {}

    def exist(self) -> bool:
        """Whether anything was ever logged here."""
        return any(self._folder.glob("*.log"))

    def last(self, count: int) -> list[str]:
        """The last lines; ``new`` goes on behind them."""
        texts = [self._read(path, _TAIL_BYTES) for path in self._folder.glob(self._name)]
        return _merged(texts)[-count:] if count else []

    def new(self) -> list[str]:
        """The lines since the last call of ``new`` or ``last``."""
        return _merged(self._read(path) for path in self._folder.glob(self._name))

    def _read(self, path: Path, tail: int | None = None) -> str:
        """What a file gained since it was read last, or its end; whole lines alone."""
        known = self._places.get(path)
        try:
            opened = path.open("rb")
        except FileNotFoundError:
            return ""  # it is being rotated just now
        with opened as file:
            now = os.fstat(file.fileno())
            offset = max(0, now.st_size - tail) if tail is not None else 0
            rest = b""
            if known and known.file == now.st_ino:
                offset = known.offset
            elif known:  # rotated: the rest of it is in the file beside
                rest = _from(path.with_name(f"{path.name}.1"), known)
            file.seek(offset)
            if tail is not None and offset:
                offset += len(file.readline())  # a line's end
            text = file.read()
        whole = text.rpartition(b"\n")[0]
        self._places[path] = _Place(now.st_ino, offset + len(whole) + bool(whole))
        return (rest + whole).decode(errors="replace")


def _from(path: Path, place: _Place) -> bytes:
    try:
        with path.open("rb") as file:
            if path.stat().st_ino != place.file:
                return b""
            file.seek(place.offset)
            return file.read()
    except FileNotFoundError:
        return b""


def _merged(texts: Iterable[str]) -> list[str]:
    lines = [[*_timed(text.splitlines())] for text in texts]
    return [line for _, line in heapq.merge(*lines, key=itemgetter(0))]


def _timed(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each line with its time; one that tells none belongs to the line before it."""
    at = ""
    for line in lines:
        at = max(at, _time_of(line) or at)
        yield at, line


def _time_of(line: str) -> str:
    if found := _OURS.match(line):
        return found[1]
    for pattern, form in _OTHERS:
        if found := pattern.match(line):
            at = datetime.strptime(found[1], form).astimezone(UTC)
            return f"{at:%Y-%m-%dT%H:%M:%S}.{found[2]}"
    return ""
