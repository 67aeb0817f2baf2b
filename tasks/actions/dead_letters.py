"""Republish dead letters: signals whose push failed a hundred times (D8).

Only while new actions are admitted: before that, a signal would become a dead letter again. A
signal that comes twice changes nothing, so a letter is buried after it was published, never before.
"""

import logging
from collections.abc import Iterator

from governor.errors import ConflictError, InputError, OutageError
from governor.records import SYSTEM_ACCOUNT
from ports import Ports
from ports.signals import DeadLetter
from tasks.receipts.commit import commit_once, explained
from tasks.sweep import for_a_while

_LOG = logging.getLogger("ggen.signals")
EVERY_S = 60
PATIENCE_S = 20.0
"""How long one pass goes on: less than a letter that was handed out is kept from others."""

_AT_ONCE = 50


def dead_letters(ports: Ports) -> None:
    """Publish some of them again, once a minute."""
    if ports.lease.lease_left_s() > 0 and ports.watches.claim_tick("revive", 0.9 * EVERY_S):
        try:
            revive(ports)
        except OutageError as error:
            _LOG.warning("dead letters cannot be read, and wait: %s", error)


def revive(ports: Ports) -> int:
    """Publish dead letters again; how many. One that never can be is receipted instead.

    Raises:
        OutageError: they cannot be read.
    """
    # The next pass, in a minute, gets the letters again that were not buried in time.
    return sum(_revive(ports, letter) for letter in for_a_while(ports, _all(ports), PATIENCE_S))


def _all(ports: Ports) -> Iterator[DeadLetter]:
    while letters := ports.signals.dead_letters(_AT_ONCE):
        yield from letters


def _revive(ports: Ports, letter: DeadLetter) -> bool:
    """Publish one again and bury it; one that cannot be holds up no other."""
    try:
        is_published = _publish(ports, letter)
        ports.signals.bury(letter)
    except OutageError as error:
        _LOG.warning("a dead letter of %s waits: %s", letter.account_id, error)
        return False
    if is_published:
        _LOG.warning(
            "dead letter %s of %s is published again", letter.message_id, letter.account_id
        )
    return is_published


def _publish(ports: Ports, letter: DeadLetter) -> bool:
    try:
        if not letter.account_id:
            raise InputError("no-tenant", "it came from no tenant's subscription")
        ports.signals.publish(letter.account_id, letter.data)
    except InputError as error:
        _receipt(ports, letter, error)
        return False
    return True


def _receipt(ports: Ports, letter: DeadLetter, error: InputError) -> None:
    proofs = explained(
        ports,
        "signal_dead_lettered",
        letter.account_id or SYSTEM_ACCOUNT,
        letter.message_id,
        error.detail,
        status="failed",
        message_id=letter.message_id,
        error_code=error.code,
    )
    try:
        commit_once(ports, proofs)
    except ConflictError:
        pass  # receipted before, and not buried
