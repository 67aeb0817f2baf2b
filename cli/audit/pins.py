"""Checkpoints an auditor kept: the ledger verified now must extend them."""

from pathlib import Path

from governor.errors import InputError
from ledger import archive
from ledger.audit import Pin
from ledger.checkpoint import open_checkpoint
from ledger.keys import KeyRing

_GZIP = b"\x1f\x8b"


def pin_of(path: Path, ring: KeyRing, account_id: str) -> Pin:
    """The checkpoint in a file, or in an archive, signed by a trusted key for this account.

    Raises:
        InputError: the file holds no checkpoint, or no trusted key signed it.
    """
    with path.open("rb") as file:
        is_archive = file.read(2) == _GZIP
    try:
        note = _packed(path) if is_archive else path.read_text(errors="replace")
        checkpoint, _ = open_checkpoint(note, ring.log_origin(account_id), ring)
    except InputError as error:
        raise InputError(
            "bad-pin", f"{path} holds no checkpoint of {account_id} to extend: {error.detail}"
        ) from error
    return Pin(checkpoint, f"the checkpoint of {path}")


def _packed(path: Path) -> str:
    with path.open("rb") as file:
        for name, pieces in archive.read(file, path.stat().st_size):
            if name == archive.CHECKPOINT:
                return b"".join(pieces).decode(errors="replace")
    raise InputError("bad-archive", f"there is no checkpoint in {path}")
