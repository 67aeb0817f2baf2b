"""What is concluded from silence, and what an outage says of itself."""

import pytest

from governor.errors import UnreadableError
from governor.health import Drill, Fault, Outage, Scope, Silence, outage_id, outage_path, silence

AT = "2026-11-25T12:00:00.000000Z"


@pytest.mark.parametrize(
    ("checked_ago_s", "beat_seen_for_s", "memory_seen_for_s", "worker_up_s", "cause"),
    [
        (None, 0, 1, 100, Silence.WIPED),
        (60, 1, 900, 900, Silence.BEAT),
        (60, 0, 900, 900, Silence.BEAT),
        (60, 900, 900, 900, Silence.CHECKER),
        (60, 900, 900, 2, Silence.CHECKER),
        (60, 1, 3, 900, Silence.MEMORY),
        (60, 1, 3, 2, Silence.STOPPED),
        (60, 0, 0, 2, Silence.STOPPED),
    ],
)
def test_who_was_silent_is_told_by_who_was_seen(
    checked_ago_s: float | None,
    beat_seen_for_s: float,
    memory_seen_for_s: float,
    worker_up_s: float,
    cause: Silence,
) -> None:
    found = silence(
        checked_ago_s=checked_ago_s,
        beat_seen_for_s=beat_seen_for_s,
        memory_seen_for_s=memory_seen_for_s,
        worker_up_s=worker_up_s,
    )

    assert found is cause
    assert found.words


def test_an_outage_affects_everybody_or_those_it_names() -> None:
    everybody = Outage(
        outage_id=outage_id(Scope.ALL, AT),
        reason="sqlite_recovered",
        error_code="UNAVAILABLE",
        error_detail="away",
        began_at=AT,
    )

    assert everybody.affected == "all"
    some = everybody.evolve(scope=Scope.SOME, accounts=["acme"])
    assert some.affected == ["acme"]
    assert Outage.stored(some.document()) == some
    assert outage_path(some.outage_id) == f"outages/{some.outage_id}"
    assert outage_id(Scope.ALL, AT) != outage_id(Scope.SOME, AT)


def test_what_is_no_record_is_an_outage_of_the_store() -> None:
    with pytest.raises(UnreadableError, match=r"no outage.*outage_id") as unreadable:
        Outage.stored({"": "garbage"})
    assert unreadable.value.status == "DATA_LOSS"


def test_a_drill_is_of_everybody_or_of_some() -> None:
    assert Drill(drill_id="d", fault=Fault.HANG).scope is Scope.ALL
    assert Drill(drill_id="d", fault=Fault.HANG, accounts=["acme"]).scope is Scope.SOME
