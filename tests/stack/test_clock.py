"""A machine's clock is set for a moment, and back: its programs go on as if it had not been.

Documents of meanwhile have the time that they go by (decision 0012).
"""

import time
from functools import partial
from pathlib import Path

from adapters.wiring import open_ports
from bench.chaos.clock import had_by_children, wall_clock
from tests.stack.conftest import SHORT, Stack, new_stack
from tests.support.tools import lacks
from tests.support.waiting import until


def test_a_clock_that_is_set_for_a_moment_stops_nothing_and_dates_nothing_wrong(
    tmp_path: Path,
) -> None:
    clock = wall_clock(tmp_path / "clock")
    if clock is None:
        lacks("no C compiler here")
    stack = new_stack(tmp_path, **SHORT)
    with had_by_children(clock):
        assert stack.ggen("up", "--detach").returncode == 0
    try:
        ports = open_ports(stack.settings)

        def fires() -> None:
            since_s = time.monotonic()

            def has_fired() -> bool:
                seen = ports.watches.seen(["beat"])["beat"]
                return seen is not None and seen.ago_s < time.monotonic() - since_s

            until(has_fired, 20)

        fires()
        for seconds in (-3600, 3600):
            clock.set_by(seconds)
            fires()
            until(
                lambda: ports.lease.lease_left_s() > 0, 20
            )  # it may have run out by Memory's clock
            account_id = f"acme{seconds}".replace("-", "_")
            stack.subscribe(account_id)
            clock.set_by(0)
            fires()
            until(partial(_is_valid_to_the_second, stack, account_id), 30)
    finally:
        stack.ggen("down")


def _is_valid_to_the_second(stack: Stack, account_id: str) -> bool:
    """Each receipt is sealed, and was recorded when it says that it was made."""
    verified = stack.ggen("verify-ledger", "--account-id", account_id, "--strict")
    assert verified.returncode in (0, 6), verified.stdout + verified.stderr
    return verified.returncode == 0
