"""Dead letters live again: what was pushed in vain a hundred times is published anew (D8).

Only while new actions are admitted: before that it would die once more. A signal that comes twice
changes nothing, so a letter is buried after it was published, never before.
"""

import logging

from adapters import wiring
from governor.errors import ConflictError, InputError
from governor.records import SYSTEM_ACCOUNT
from ports import Ports
from ports.signals import DeadLetter
from tasks.celery import app
from tasks.emit import land, receipt

_LOG = logging.getLogger("ggen.signals")
EVERY_S = 60
_AT_ONCE, _ROUNDS = 100, 20


@app.task(name="revive.dead_letters", send_events=False)
def dead_letters() -> None:
    """Publish some of them again, once a minute."""
    ports = wiring.ports()
    if ports.memory.lease_left_s() > 0 and ports.memory.claim_tick("revive", 0.9 * EVERY_S):
        revive(ports)


def revive(ports: Ports) -> int:
    """Publish dead letters again; how many. One that never can be is receipted instead.

    Raises:
        OutageError: a store did not answer; what was not buried is told again.
    """
    revived = 0
    for _ in range(_ROUNDS):
        letters = ports.signals.dead_letters(_AT_ONCE)
        for letter in letters:
            revived += _publish(ports, letter)
            ports.signals.bury(letter)
        if len(letters) < _AT_ONCE:
            break
    if revived:
        _LOG.warning("%d dead letters were published again", revived)
    return revived


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
    proof = receipt(
        ports, "signal_dead_lettered", letter.account_id or SYSTEM_ACCOUNT, letter.message_id,
        status="failed", message_id=letter.message_id, error_code=error.code,
        error_detail=error.detail[:1024],
    )  # fmt: skip
    try:
        land(ports, [proof])
    except ConflictError:
        pass  # receipted before, and not buried
