"""Refusals, receipted in aggregate: nothing is silent, and rubbish cannot grow a ledger (D7)."""

from governor.errors import ConflictError
from governor.records import SYSTEM_ACCOUNT
from governor.times import timestamp
from ports import Ports
from tasks.receipts.commit import commit_once, receipt


def tally_of(operation: str, account_id: str = SYSTEM_ACCOUNT) -> str:
    """The name under which Memory counts one ledger's refusals."""
    return f"{operation}:{account_id}"


def tally(ports: Ports) -> None:
    """Freeze the counts of the last window and commit a receipt for each ledger they touch."""
    window = timestamp(ports.clock.now())
    for frozen, ledgers in ports.tallies.take_counts(window).items():
        for ledger, reasons in ledgers.items():
            _receipt(ports, frozen, ledger, reasons)
        ports.tallies.drop_counts(frozen)


def _receipt(ports: Ports, window: str, ledger: str, reasons: dict[str, int]) -> None:
    operation, _, account_id = ledger.partition(":")
    proof = receipt(
        ports,
        operation,
        account_id,
        window,
        status="refused",
        window_end=window,
        total=sum(reasons.values()),
        by_reason=reasons,
    )
    try:
        commit_once(ports, [proof])
    except ConflictError:
        pass  # committed before, and the window not yet dropped
