"""The overview on a screen of 80 columns, and on one of 200: all of it is there, nothing is cut."""

from dataclasses import asdict
from typing import Any

import pytest

from cli.overview.problems import problems
from cli.overview.screen import text

ANSWER: dict[str, Any] = {
    "ready": False,
    "mode": "degraded",
    "missing": {"mode": "degraded since 12:00, OUTAGE: all that is new is refused", "pump": "gone"},
    "error_code": "OUTAGE",
    "since": "2026-11-26T12:00:00.000000Z",
    "spooled": 3,
    "refused": 1234567,
    "lease_s": 0.0,
    "troubles": [{"name": "clock-off/a-host", "detail": "it differs", "since_s": 4, "count": 1}],
}
FACTS: dict[str, Any] = {
    "work": {
        "in_flight": 40,
        "waiting": 123456,
        "oldest_s": 61.5,
        "oldest_account": "a" * 63,
        "orphans": 0,
        "spooled": 3,
    },
    "failing": [
        {
            "account_id": "b" * 63,
            "handler": "billing.charge_the_customer_for_everything",
            "error_code": "PAYMENT_GATEWAY_UNREACHABLE",
            "actions": 17,
            "rolled_back": 12,
            "rollbacks_failing": 5,
            "retry_at": "2026-11-26T12:05:00.000000Z",
            "since": "2026-11-26T11:58:00.000000Z",
            "last": "2026-11-26T12:01:00.000000Z",
            "action_id": "action-" + "0" * 40,
        }
    ],
    "runs": {
        "open": 2,
        "parked": 1,
        "held": [
            {
                "run_id": "run-" + "1" * 40,
                "runbook": "customer_cancels",
                "account_id": "acme",
                "state": "parked",
                "step": "deploy_sku.signals",
                "error": "OutageError: the topic does not answer",
                "since": "2026-11-26T11:00:00.000000Z",
                "retry_at": None,
            }
        ],
    },
    "alerts": {"unknown": "Memory does not answer within 1 s"},
    "ledgers": {
        "unsealed": 9,
        "verified_ago_s": 7300,
        "broken": [{"account_id": "acme", "since": "2026-11-26T10:00:00.000000Z"}],
    },
    "policy": None,
    "disk": {
        "used_bytes": 2**34,
        "free_bytes": 2**20,
        "bytes_a_day": 2**30,
        "full_in_days": 0.1,
    },
}


def shown(width: int) -> str:
    answer = {
        **ANSWER,
        "version": "1.2.3",
        "state_dir": "/var/lib/ggen",
        "components": {"actions": {"pid": 1, "up_s": 90_000}},
        **FACTS,
        "problems": [asdict(each) for each in problems(ANSWER, FACTS)],
    }
    return text(answer, width)


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    assert max(map(len, shown(width).splitlines())) <= width


def test_a_wide_screen_shows_problems_beside_each_other() -> None:
    assert len(shown(200).splitlines()) < 0.7 * len(shown(80).splitlines())


def test_what_hurts_everybody_comes_first_and_what_does_not_fit_is_counted() -> None:
    wrong = [each.what for each in problems(ANSWER, FACTS)]

    assert wrong == [
        "the system refuses new work: OUTAGE",
        "pump is missing",
        "the ledger of acme does not hold",
        "customer_cancels of acme is parked: its undo keeps failing",
        f"billing.charge_the_customer_for_everything fails for {'b' * 63}: 17 actions",
        "123456 actions wait for a worker",
        "the disk is full in 0.1 days at the pace so far",
        "clock-off/a-host",
        "not known now: alerts",
    ]
    assert "and 3 more: ggen status --json" in shown(80)


def test_a_part_whose_store_is_away_says_so_on_its_line() -> None:
    assert "alerts   unknown: Memory does not answer within 1 s" in shown(80)


def test_where_nothing_is_wrong_the_screen_says_so() -> None:
    answer = {"ready": True, "mode": "normal", "missing": {}, "troubles": []}

    assert problems(answer, {}) == []
    whole = {**answer, "version": "1", "state_dir": "x", "components": {}, "problems": []}
    assert text(whole).endswith("nothing is wrong")
