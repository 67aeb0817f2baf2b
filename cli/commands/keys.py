"""``ggen keys``: what an operator does with the ledger's signing keys."""

from datetime import datetime
from typing import Any

from adapters.wiring import open_ports
from cli.audit.export import since
from config.settings import load
from governor.errors import ConflictError, GovernorError, InputError
from governor.records import SYSTEM_ACCOUNT
from governor.times import instant, timestamp
from ledger.keys import GRACE, fingerprint
from ports import Ports
from ports.documents import every
from tasks.ledgers.stored_log import StoredLog
from tasks.receipts.commit import commit_once, receipt


def listed() -> list[dict[str, Any]]:
    """Every key, newest first."""
    ports = open_ports(load())
    current = ports.keys.signer().key_id
    return [
        {
            "key_id": key.key_id,
            "fingerprint": fingerprint(key.key),
            "public_key": key.public_key,
            "valid_from": key.valid_from,
            "valid_until": key.valid_until,
            "leaked_at": key.leaked_at,
            "in_use": key.key_id == current,
        }
        for key in reversed(ports.keys.ring().keys)
    ]


def exported() -> str:
    """The file an auditor trusts."""
    return open_ports(load()).keys.ring().model_dump_json(indent=1, exclude_none=True) + "\n"


def disown(key_id: str, leaked_at: str) -> dict[str, str]:
    """Reject a key's signatures that were recorded at its leak (``leaked_at``) or later.

    Raises:
        InputError: no time, or in the future; no such key, or the one in use. Nothing was changed.
    """
    ports = open_ports(load())
    at = _past(leaked_at, timestamp(ports.clock.now()))
    ports.keys.disown(key_id[:32], instant(at))
    return {"key_id": key_id[:32], "leaked_at": at}


def rotate(leaked_at: str | None) -> dict[str, str | None]:
    """Put a new key to use, end the old one's time, and receipt it in the platform's ledger.

    Raises:
        InputError: ``leaked_at`` is no time, lies in the future, or before the key's first use.
            Nothing was changed.
        OutageError: the keys could not be written, or were and the receipt could not: says which.
    """
    ports = open_ports(load())
    now = ports.clock.now()
    current = ports.keys.ring().find(ports.keys.signer().key_id)
    at = _past(leaked_at, timestamp(now)) if leaked_at else None
    if at and current and at < current.valid_from:
        raise InputError(
            "bad-time", f"the key is in use since {current.valid_from}; nothing was changed"
        )
    _refuse_if_recorded_ahead(ports, now)
    before, after = ports.keys.rotate(now)
    if at:
        ports.keys.disown(before, instant(at))
    try:
        proof = receipt(
            ports, "key_rotated", SYSTEM_ACCOUNT, after, previous_key_id=before, key_id=after
        )
        commit_once(ports, [proof])
    except ConflictError:
        pass  # the sealer was faster to tell
    except GovernorError as error:
        raise type(error)(
            error.code,
            f"key {after} is in use, but that is not receipted yet ({error.detail}). "
            "Nothing needs to be done: the next seal receipts it",
        ) from error
    return {"key_id": after, "previous_key_id": before, "previous_leaked_at": at}


def _refuse_if_recorded_ahead(ports: Ports, now: datetime) -> None:
    """What the old key has signed must not look as if it were signed after its time."""
    for account_id in (
        SYSTEM_ACCOUNT,
        *(d.path.split("/")[1] for d in every(ports.documents, "tenants")),
    ):
        last = StoredLog.of(ports, account_id).newest()
        if last and instant(last.recorded_until) > now + GRACE:
            raise ConflictError(
                "clock-behind",
                f"a ledger was recorded until {last.recorded_until}, which lies "
                f"ahead of this machine's clock ({timestamp(now)}): it is, or was, off. No key was "
                "changed. Set the clock right, or rotate after that time",
            )


def _past(text: str, now: str) -> str:
    at = since(text)
    if at > now:
        raise InputError("bad-time", f"{at} lies in the future; nothing was changed")
    return at
