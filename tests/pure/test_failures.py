"""Limits on failures, by the clock they are counted with."""

import time
from datetime import UTC, datetime

import pytest

from governor.errors import DeniedError, InputError
from ingress.failures import Failures

WRONG = InputError("invalid-payload", "no number")


def test_a_tenant_waits_for_ten_seconds_and_not_until_a_clock_that_was_set_back_catches_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 1_800_000_000.0
    monkeypatch.setattr(time, "time", lambda: now_s)

    class Clock:
        def now(self) -> datetime:
            return datetime.fromtimestamp(now_s, UTC)

    failures = Failures(0, Clock())  # type: ignore[arg-type]
    for _ in range(200):
        failures.check_tenant("acme")
        failures.note_tenant("acme", WRONG)
    failures.check_tenant("other")
    with pytest.raises(DeniedError, match="none is looked at for now"):
        failures.check_tenant("acme")

    now_s -= 86_400

    failures.check_tenant("acme")
