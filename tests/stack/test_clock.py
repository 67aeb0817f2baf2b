"""A machine's clock is set for a moment, and back: its programs go on as if it had not been."""

import time
from pathlib import Path

from adapters.wiring import open_ports
from bench.chaos.clock import had_by_children, wall_clock
from tests.stack.conftest import SHORT, new_stack
from tests.support.tools import lacks
from tests.support.waiting import until


def test_after_a_clock_that_was_an_hour_ahead_for_a_moment_beat_fires_as_before(
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
        clock.set_by(3600)
        fires()
        clock.set_by(0)
        fires()
    finally:
        stack.ggen("down")
