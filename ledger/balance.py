"""Whether a ledger's counts hold: each action that was in flight has ended, and none after the end.

Pure, and fed with receipts in the order of the log. ``verify.py`` in every archive counts the same.
"""

import base64
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from governor.errors import InputError
from ledger import canonical
from ledger.verify import Check, Finding

ENDS = ("action_complete", "action_failed", "action_timeout")
"""The receipts that end an action, exactly one for each."""

_OPERATION = re.compile(
    rb'"operation":"(%b|decommission_start|decommission_complete|entitlement_active)"'
    % "|".join(ENDS).encode()
)
_HALVES = ("actions_completed", "actions_failed", "actions_timed_out")


@dataclass
class Balance:
    """The counts of a ledger, as far as it was read.

    Of a part that begins later than the ledger (``is_whole`` is false), the counts of what began
    before are not judged.
    """

    is_whole: bool = True
    _ends: Counter[str] = field(default_factory=Counter)
    _counted: set[str] = field(default_factory=set)
    _over: set[str] = field(default_factory=set)
    _in_flight: dict[str, int] = field(default_factory=dict)

    def take(
        self, content: Mapping[str, Any] | bytes, place: Callable[[], str]
    ) -> Iterator[Finding]:
        """Count the next receipt of the log, stored or as its envelope; what does not hold.

        Anything but a receipt is not counted: other checks report it. ``place`` is where a finding
        points.
        """
        try:
            payload = _payload(content)
            fields = canonical.loads(payload) if _OPERATION.search(payload) else {}
            count = _COUNTS.get(fields["operation"]) if fields else None
            faults = list(count(self, fields)) if count else []
        except (InputError, ValueError, LookupError, TypeError):
            return
        for check, fault in faults:
            yield Finding(place(), check, fault)

    def _active(self, fields: Mapping[str, Any]) -> "_Faults":
        self._over.discard(_entitlement(fields))
        yield from ()

    def _ended(self, fields: Mapping[str, Any]) -> "_Faults":
        entitlement = _entitlement(fields)
        self._ends[entitlement] += 1
        if entitlement in self._over:
            yield Check.ORDERING, f"ends an action after {entitlement} was decommissioned"

    def _started(self, fields: Mapping[str, Any]) -> "_Faults":
        self._in_flight[fields["run_id"]] = int(fields["in_flight_actions"])
        yield from ()

    def _completed(self, fields: Mapping[str, Any]) -> "_Faults":
        entitlement, run_id = fields["entitlement_id"], fields["run_id"]
        ended = sum(int(fields[name]) for name in _HALVES)
        in_flight = self._in_flight.pop(run_id, None)
        if in_flight is None and self.is_whole:
            yield Check.COMPLETENESS, f"there is no decommission_start of {run_id} before it"
        elif in_flight is not None and in_flight != ended:
            yield Check.COMPLETENESS, f"{in_flight} actions were in flight, and {ended} ended"
        accepted = fields.get("actions_accepted")
        found = self._ends.pop(entitlement, 0)
        is_counted = self.is_whole or entitlement in self._counted
        if is_counted and accepted is not None and accepted != found:
            yield (
                Check.COMPLETENESS,
                f"{accepted} actions of {entitlement} were accepted, but {found} have an end here",
            )
        self._counted.add(entitlement)
        self._over.add(entitlement)


_Faults = Iterator[tuple[Check, str]]
_COUNTS: Mapping[str, Callable[[Balance, Mapping[str, Any]], _Faults]] = {
    **dict.fromkeys(ENDS, Balance._ended),
    "entitlement_active": Balance._active,
    "decommission_start": Balance._started,
    "decommission_complete": Balance._completed,
}


def _entitlement(fields: Mapping[str, Any]) -> str:
    """Whose it is; in receipts of release 0.1.0 an entitlement is named after its SKU."""
    return str(fields.get("entitlement_id") or fields["sku_id"])


def _payload(content: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(content, bytes):
        return base64.b64decode(content.split(b'"', 4)[3])
    return str(content["payload"]).encode()
