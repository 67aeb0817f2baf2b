"""A cancellation measured: with fifty actions under way, and with a ledger of 10,000 receipts."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from adapters.local.waiting import until
from adapters.wiring import open_ports
from bench.figures import Figures
from bench.measures.ledger import fill
from bench.stack import Driver
from governor.errors import GovernorError
from governor.times import instant
from ingress.client import checked
from tasks.actions.storing import STORED_WITHIN_S

RECEIPTS = 10_000
UNDER_WAY: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("demo.succeed", {}),) * 20,
    *(("demo.sleep", {"seconds": 60}),) * 14,
    *(("demo.fail", {"recoverable": True}),) * 8,
    *(("demo.rollback_fails", {"times": 2}),) * 4,
    *(("demo.spin", {}),) * 4,
)
"""Fifty actions: some hang in C code until they are killed, some are undone at the third try."""


def cancellation(driver: Driver) -> Figures:
    """From the webhook to the first refusal, and to the end, with fifty actions under way."""
    account_id = "bench-cancel"
    driver.subscribe(account_id)
    ports = open_ports(driver.settings)
    until(lambda: ports.governors.remembers_s() > STORED_WITHIN_S)  # else it waits for that
    for kind, payload in UNDER_WAY:
        driver.signal(account_id, kind, payload)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_cancel, Driver(driver.settings), account_id)
        until(lambda: _is_refused(driver, account_id))
        shut_s = time.monotonic() - began
        receipt = _ended(driver, account_id, asked.result())
    whole_s = time.monotonic() - began
    return {
        "in_flight": receipt["in_flight_actions"],
        "completed": receipt["actions_completed"],
        "failed": receipt["actions_failed"],
        "timed_out": receipt["actions_timed_out"],
        "shut_s": round(shut_s, 2),
        "whole_s": round(whole_s, 1),
        "bar": "shut < 2 s, whole < 40 s",
        "met": shut_s < 2 and whole_s < 40,
    }


def archive(driver: Driver) -> Figures:
    """What the step takes that archives 10,000 receipts, reads the archive back, verifies it."""
    account_id = "bench-archive"
    driver.subscribe(account_id)
    ports = open_ports(driver.settings)
    fill(ports, account_id, RECEIPTS, entitlement_id="another")
    ports.documents.close()
    run_id = _cancel(driver, account_id)
    receipt = _ended(driver, account_id, run_id)
    journal = driver.read(f"/v1/runs/{run_id}")["journal"]
    began, ended = (
        instant(journal[f"customer_cancels.{step}"]["claim"]["claimed_at"])
        for step in ("archive", "latecomers")
    )
    seconds = (ended - began).total_seconds()
    return {
        "receipts": receipt["receipts_archived"],
        "archive_s": round(seconds, 2),
        "size_mib": round(receipt["archive_size_bytes"] / 2**20, 1),
        "bar": "< 5 s",
        "met": seconds < 5,
    }


def _cancel(driver: Driver, account_id: str) -> str:
    """Deliver a cancellation, wait for nothing; the run's id."""
    event = driver.event(account_id) | {"event_type": "entitlement.cancelled"}
    answer = checked(driver.post_webhook(event))
    run_id: str = answer.json()["run_id"]
    return run_id


def _is_refused(driver: Driver, account_id: str) -> bool:
    try:
        driver.signal(account_id, "demo.succeed", {})
    except GovernorError:
        return True
    return False


def _ended(driver: Driver, account_id: str, run_id: str) -> dict[str, Any]:
    until(lambda: driver.read(f"/v1/runs/{run_id}")["receipt_id"], 120)
    (receipt,) = driver.receipts(account_id, operation="decommission_complete")
    return receipt


MEASUREMENTS: Mapping[str, Callable[[Driver], Figures]] = {
    "cancellation": cancellation,
    "archive": archive,
}
