"""One random change after the other, by seed: bytes flipped, cut, doubled, and pieces known to hurt."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.fuzz.targets import Target

HURT = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b'"', b",", b"]"),
    *(b"NaN", b"Infinity", b"-0", b"1e999", b"1E400", b"9007199254740993", b"9" * 5_000),
    *(b"null", b"true", b"[" * 3_000, b'{"a":' * 400, b" " * 1_000),
    *(b"2026-11-27T00:00:00+25:00", b"9999-12-31T23:59:59-23:59", b"0001-01-01T00:00:00+23:59"),
)
SLOW_S = 2.0
"""An input for which a parser takes longer is a way to hold a door shut."""


@dataclass(frozen=True, slots=True)
class Found:
    """An input, and the error that the parser does not declare."""

    data: bytes
    error: str


def mutated(random_: random.Random, seed: bytes) -> bytes:
    """A seed with one to four changes."""
    data = bytearray(seed)
    for _ in range(random_.choice((1, 1, 1, 2, 4))):
        at = random_.randrange(len(data) + 1)
        length = random_.choice((1, 2, 8, 64))
        match random_.randrange(6):
            case 0 if at < len(data):
                data[at] = random_.randrange(256)
            case 1 if at < len(data):
                data[at] ^= 1 << random_.randrange(8)
            case 2:
                del data[at : at + length]
            case 3:
                start = random_.randrange(len(data) + 1)
                data[at:at] = data[start : start + length]
            case 4:
                data[at : at + length] = random_.choice(HURT)
            case _:
                data[at:at] = random_.choice(HURT)
    return bytes(data)


def fuzz(target: Target, seed: int, *, times: int, seconds: float = 60.0) -> Iterator[Found]:
    """What a parser does wrong in so many tries, and at most so many seconds."""
    random_ = random.Random(seed)
    give_up_at = time.monotonic() + seconds
    for _ in range(times):
        data = mutated(random_, random_.choice(target.seeds))
        began = time.monotonic()
        try:
            target.parse(data)
        except target.declared:
            pass
        except Exception as error:
            yield Found(data, f"{type(error).__name__}: {error}"[:200])
        if time.monotonic() - began > SLOW_S:
            yield Found(data, f"took {time.monotonic() - began:.1f} s")
        if time.monotonic() > give_up_at:
            return
