"""``ggen keys``: what an operator does with the ledger's signing keys."""

from typing import Any

from adapters.wiring import open_ports
from cli.export import since
from config.settings import load
from governor.errors import ConflictError, GovernorError, InputError
from governor.records import SYSTEM_ACCOUNT, instant, timestamp
from ledger.keys import fingerprint
from tasks.emit import land, receipt


def listed() -> list[dict[str, Any]]:
    """Every key, newest first."""
    ports = open_ports(load())
    current = ports.keys.signer().key_id
    return [
        {
            "key_id": key.key_id, "fingerprint": fingerprint(key.key), "public_key": key.public_key,
            "valid_from": key.valid_from, "valid_until": key.valid_until,
            "in_use": key.key_id == current,
        }
        for key in reversed(ports.keys.ring().keys)
    ]  # fmt: skip


def exported() -> str:
    """The file an auditor trusts."""
    return open_ports(load()).keys.ring().model_dump_json(indent=1, exclude_none=True) + "\n"


def retire(key_id: str, at: str) -> dict[str, str]:
    """End a key's time: what was recorded later by it is no longer believed.

    Raises:
        InputError: no time, or in the future; no such key, or the one in use. Nothing was changed.
    """
    ports, until = open_ports(load()), since(at)
    if until > timestamp(ports.clock.now()):
        raise InputError("bad-time", "that time lies in the future; nothing was changed")
    ports.keys.retire(key_id, instant(until))
    return {"key_id": key_id, "valid_until": until}


def rotate(leaked_at: str | None) -> dict[str, str]:
    """Put a new key to use, end the old one's time, and receipt it in the platform's ledger.

    Raises:
        InputError: ``leaked_at`` is no time, or lies in the future. Nothing was changed.
        OutageError: the keys could not be written, or were and the receipt could not: says which.
    """
    ports = open_ports(load())
    now = ports.clock.now()
    until = since(leaked_at) if leaked_at else timestamp(now)
    if until > timestamp(now):
        raise InputError("bad-time", "--leaked-at lies in the future; nothing was changed")
    before, after = ports.keys.rotate(now)
    if leaked_at:
        retire(before, leaked_at)
    try:
        proof = receipt(
            ports, "key_rotated", SYSTEM_ACCOUNT, after, previous_key_id=before, key_id=after
        )
        land(ports, [proof])
    except ConflictError:
        pass  # the sealer was faster to tell
    except GovernorError as error:
        raise type(error)(
            error.code, f"key {after} is in use, but that is not receipted yet ({error.detail}). "
            "Nothing needs to be done: the next seal receipts it"
        ) from error  # fmt: skip
    return {"key_id": after, "previous_key_id": before, "previous_valid_until": until}
