"""The files of a log that tools of others read: c2sp.org/tlog-tiles.

Entry bundles hold the leaves, tiles the hashes of 256 subtrees each; the newest of a level may be
partial.
"""

from collections.abc import Iterator

from ledger.merkle import HASH_BYTES, Frontier, leaf_hash

WIDTH = 256
"""Leaves of a full bundle, and hashes of a full tile."""

MAX_ENTRY_BYTES = 65_535

File = tuple[str, bytes]


class Tiles:
    """Makes the files of a log while it is read once, in order; holds one open file a level."""

    def __init__(self) -> None:
        self._size = 0
        self._bundle = bytearray()
        self._levels: list[bytearray] = []

    def append(self, leaf: bytes) -> Iterator[File]:
        """Take the next leaf; the files it fills, by name."""
        self._bundle += len(leaf).to_bytes(2, "big") + leaf
        self._size += 1
        if self._size % WIDTH == 0:
            yield _name("entries", self._size // WIDTH - 1), bytes(self._bundle)
            self._bundle.clear()
        yield from self._push(0, leaf_hash(leaf))

    def finish(self) -> Iterator[File]:
        """The partial files that are left at the end."""
        if self._bundle:
            yield _name("entries", self._size // WIDTH, self._size % WIDTH), bytes(self._bundle)
        count = self._size
        for level, tile in enumerate(self._levels):
            if tile:
                yield _name(str(level), count // WIDTH, count % WIDTH), bytes(tile)
            count //= WIDTH

    def _push(self, level: int, node: bytes) -> Iterator[File]:
        if level == len(self._levels):
            self._levels.append(bytearray())
        tile = self._levels[level]
        tile += node
        if len(tile) < WIDTH * HASH_BYTES:
            return
        number = self._size // WIDTH ** (level + 1) - 1
        full = bytes(tile)
        tile.clear()
        yield _name(str(level), number), full
        yield from self._push(level + 1, _root(full))


def bundle_names(size: int) -> Iterator[str]:
    """The entry bundles of a log of ``size`` leaves, in order."""
    for number in range(size // WIDTH):
        yield _name("entries", number)
    if size % WIDTH:
        yield _name("entries", size // WIDTH, size % WIDTH)


def entries(bundle: bytes) -> Iterator[bytes]:
    """The leaves of an entry bundle.

    Raises:
        ValueError: it ends in the middle of one.
    """
    at = 0
    while at < len(bundle):
        end = at + 2 + int.from_bytes(bundle[at : at + 2], "big")
        if end > len(bundle) or at + 2 > len(bundle):
            raise ValueError("the bundle ends in the middle of an entry")
        yield bundle[at + 2 : end]
        at = end


def _root(tile: bytes) -> bytes:
    tree = Frontier()
    for at in range(0, len(tile), HASH_BYTES):
        tree = tree.append(tile[at : at + HASH_BYTES])
    return tree.root()


def _name(kind: str, number: int, width: int = 0) -> str:
    groups = [f"{number % 1000:03d}"]
    while number := number // 1000:
        groups.insert(0, f"x{number % 1000:03d}")
    return f"tile/{kind}/{'/'.join(groups)}" + (f".p/{width}" if width else "")
