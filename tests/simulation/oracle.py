"""What must hold: at every commit (safety), and once all is quiet (the end)."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from governor.fsm import RUN_OPEN, ActionState
from governor.paths import action_path, receipt_path
from governor.quota import month_of
from governor.times import instant, timestamp
from ports import Ports
from ports.documents import Create, Document, Query, Update, Write
from tasks.ledgers.audit import audit_ledger
from tasks.ledgers.seal import seal_ledger

STORED_WITHIN = timedelta(seconds=7)
"""An action that is stored later than this was admitted by a process that stood still since."""

LEASED = timedelta(seconds=4)
"""A recovery gives a lease of 6 s: none runs out sooner after it."""

ENDS = ("action_complete", "action_timeout", "action_failed")
ENDED = (ActionState.COMPLETE, ActionState.FAILED, ActionState.ROLLED_BACK)
HOLDING = (ActionState.PENDING, ActionState.RUNNING, ActionState.ROLLING_BACK)


class Broken(Exception):
    """An invariant does not hold."""


class Oracle:
    """Sees every commit before it lands, and every effect of a handler."""

    def __init__(self, limit: int) -> None:
        self.effects: dict[str, list[tuple[float, int, str]]] = defaultdict(list)
        self.ends = Counter[str]()
        self.limits: dict[str, int] = defaultdict(lambda: limit)
        """Account -> the highest limit it ever had."""
        self.is_wiped = False
        """Whether Memory has forgotten which outages go on."""
        self.archived = set[str]()
        self.decommissioned = dict[str, dict[str, Any]]()
        """Account -> the receipt of its end."""
        self.active = set[str]()
        self.late = set[str]()
        self.broken = ""
        self._states: dict[str, dict[str, str]] = defaultdict(dict)
        self.spooled: Callable[[], list[str]] = list
        self.tell: Callable[[str], None] = lambda _line: None

    def check(self, holds: bool, what: str) -> None:
        """Note the first thing that does not hold; the world ends there."""
        if not holds and not self.broken:
            self.broken = what

    # -- effects

    def effect(self, now_s: float, pid: int, action_id: str, what: str) -> None:
        """A handler or its undo did something."""
        self.effects[action_id].append((now_s, pid, what))
        kinds = Counter(kind for _, _, kind in self.effects[action_id])
        self.check(kinds["start"] <= 1, f"{action_id} was started twice")
        if what in ("start", "work"):
            self.check(not self.ends[action_id], f"{action_id}: {what} after its receipt")

    # -- commits

    def seen(self, documents: dict[str, Document], writes: Sequence[Write], now: datetime) -> None:
        """A commit that is about to land."""
        receipts = [_fields(w) for w in writes if isinstance(w, Create) and "/receipts/" in w.path]
        for write in writes:
            if "/receipts/" in write.path:
                self.check(isinstance(write, Create), f"{write.path} was written again")
        for receipt in receipts:
            if receipt["operation"] == "decommission_complete":
                held = self._states[receipt["account_id"]].values()
                goes_on = [state for state in held if state not in (*ENDED, "over")]
                self.check(not goes_on, f"{receipt['account_id']} is archived with {goes_on}")
        told = {r["action_id"]: r for r in receipts if "action_id" in r}
        moved = {w.path.rpartition("/")[2]: w for w in writes if "/actions/" in w.path}
        self._ends(told, moved)
        for receipt in receipts:
            if receipt["operation"] == "decommission_complete":
                self.archived.add(receipt["account_id"])
                self.decommissioned[receipt["account_id"]] = receipt
            if receipt["operation"] == "entitlement_active":
                self.active.add(receipt["account_id"])
        for write in writes:
            if isinstance(write, Create) and "/actions/" in write.path:
                account = write.data["account_id"]
                self.check(account not in self.archived, f"{account} is archived, and acts again")
                self.check(account in self.active, f"{account} acts before it is subscribed")
        for write in writes:
            if "/entitlements/" in write.path and isinstance(write, Update):
                self._entitlement(documents[write.path].data, write.data, receipts)
        for action_id, write in moved.items():
            if isinstance(write, (Create, Update)):
                self._state(documents, action_id, write, told, now)
        for write in writes:
            if write.path.startswith("runs/") and isinstance(write, Update):
                self._run(documents, write, receipts)

    def _entitlement(
        self, before: dict[str, Any], after: dict[str, Any], receipts: list[dict[str, Any]]
    ) -> None:
        """A limit or a version changes with its receipt, which says what it was and is."""
        account, limit = after["account_id"], after["concurrent_actions"]
        self.limits[account] = max(self.limits[account], limit)
        told = {r["operation"]: r for r in receipts if r["account_id"] == account}
        upgraded = told.get("policy_upgraded", {})
        if after["policy_version"] != before["policy_version"]:
            is_told = upgraded.get("policy_version") == after["policy_version"]
            self.check(is_told, f"{account}: a version without its receipt")
        if limit != before["concurrent_actions"]:
            scaled = told.get("governor_scaled") or told.get("governor_scale_reverted")
            change = {"previous": before["concurrent_actions"], "new": limit}
            is_told = scaled is not None and scaled["concurrency"] == change
            is_told = is_told or upgraded.get("concurrent_actions") == limit
            self.check(is_told, f"{account}: {change} without its receipt")

    def _ends(self, told: dict[str, Any], moved: dict[str, Write]) -> None:
        for action_id, receipt in told.items():
            if receipt["operation"] in ENDS:
                self.ends[action_id] += 1
                self.check(self.ends[action_id] == 1, f"{action_id} has two receipts of its end")
            if receipt["operation"] in (*ENDS, "action_rolled_back", "rollback_failed"):
                self.check(action_id in moved, f"{action_id}: {receipt['operation']} without state")

    def _state(
        self,
        documents: dict[str, Document],
        action_id: str,
        write: Create | Update,
        told: dict[str, Any],
        now: datetime,
    ) -> None:
        before = documents.get(write.path)
        was = before.data["state"] if before else ""
        state, account = write.data["state"], write.data["account_id"]
        if state != was:
            self.tell(f"{account} {action_id[:12]}: {was or 'new'} -> {state}")
        self.check(was not in ENDED, f"{action_id} went on from {was}")
        if state != was and state in (*ENDED, ActionState.ROLLING_BACK):
            is_retried = was == ActionState.ROLLBACK_FAILED and state == ActionState.ROLLING_BACK
            self.check(is_retried or action_id in told, f"{action_id}: {state} without receipt")
        held = self._states[account]
        # A rollback that is tried again has given its slot back before.
        if before is None and write.data["accepted_at"] < timestamp(now - STORED_WITHIN):
            self.late.add(action_id)  # its process stood still as it stored it
        is_retried = state == ActionState.ROLLING_BACK and write.data["rollback_attempts"] > 0
        held[action_id] = "retried" if is_retried else state
        # An end that waits in the spool has given its slot back, too.
        spooled = self.spooled()
        count = sum(
            s in HOLDING and a not in self.late and not any(a in name for name in spooled)
            for a, s in held.items()
        )
        limit = self.limits[account]
        self.check(count <= limit, f"{account}: {count} at once, {limit} allowed")

    def _run(
        self, documents: dict[str, Document], write: Update, receipts: list[dict[str, Any]]
    ) -> None:
        run = write.data
        if run["state"] in RUN_OPEN or run["receipt_id"] is None:
            return
        known = receipt_path(run["account_id"], run["receipt_id"]) in documents
        told = any(receipt["receipt_id"] == run["receipt_id"] for receipt in receipts)
        self.check(known or told, f"{run['run_id']} ended without its receipt")

    # -- the end

    def finally_(self, ports: Ports, accepted: dict[str, tuple[str, str]]) -> None:
        """Everything is quiet: what was accepted has ended, once, and the ledgers verify."""
        for action_id, (account, ends) in accepted.items():
            found = ports.documents.get(action_path(account, action_id))
            self.check(found is not None, f"{action_id} was accepted and is not there")
            if found is None:
                continue
            state = found.data["state"]
            self.check(state in ENDED, f"{action_id} is still {state}")
            self.check(self.ends[action_id] == 1, f"{action_id} has {self.ends[action_id]} ends")
            kinds = Counter(kind for _, _, kind in self.effects[action_id])
            if state == ActionState.COMPLETE:
                self.check(kinds["work"] == 1, f"{action_id} is complete and did not work")
                self.check(not kinds["undo"], f"{action_id} is complete, and was undone")
            if state == ActionState.ROLLED_BACK:
                self.check(kinds["undone"] >= 1, f"{action_id} is rolled back and was not undone")
            if ends == "well" and kinds["work"] and state == ActionState.FAILED:
                self.check(False, f"{action_id} worked and failed without an undo")
        if not self.is_wiped:
            self._outages(ports)
        for account in self.active:
            month = month_of(ports.clock.now())
            used = ports.governors.used(account, "sim-sku", month)
            stored = len(self._states[account])
            # After a loss of Memory it may count too many, never too few.
            is_right = used >= stored if self.is_wiped else used == stored
            self.check(is_right, f"{account}: {used} are counted, {stored} were accepted")
        for document in [d for d in ports.documents.held.values() if d.path.startswith("tenants/")]:  # type: ignore[attr-defined]
            if document.path.count("/") == 1:
                seal_ledger(ports, document.path.partition("/")[2])  # as the hourly pass does
                report = audit_ledger(ports, document.path.partition("/")[2])
                faults = [f"{f.check}: {f.fault}" for f in report.findings]
                self.check(not faults, f"ledger of {document.path}: {faults[:3]}")
                self.check(report.unsealed == 0, f"{document.path}: {report.unsealed} unsealed")

    def _outages(self, ports: Ports) -> None:
        """No receipt names a lapse that began while checks had everything refused anyway.

        Documents may fail while a lapse goes on: then both have their receipts.
        """
        found = [d.data for d in ports.documents.scan(Query("outages", limit=1000))]
        noticed = [each for each in found if each["degraded_at"]]
        for lapse in [each for each in found if not each["degraded_at"]]:
            # One with failed checks began with the first of them, which may be the next at all.
            leased = timedelta() if lapse["failure_count"] else LEASED
            for each in noticed:
                since, until = instant(each["degraded_at"]), instant(each["recovered_at"])
                is_beside = since <= instant(lapse["began_at"]) <= until + leased
                self.check(not is_beside, f"{lapse['outage_id']} began in {each['outage_id']}")


def _fields(write: Create) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(write.data["payload"])
    return told
