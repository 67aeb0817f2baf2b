import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor import fsm
from governor.errors import ConflictError
from governor.fsm import ACTION, GOVERNOR, ActionState, GovernorState, advance

DOCS = Path(__file__).parents[2] / "docs" / "state-machines.md"


@pytest.mark.parametrize("name", sorted(fsm.TABLES))
def test_the_drawn_diagram_is_the_table(name: str) -> None:
    drawn = re.findall(r"```mermaid\n(.*?)\n```", DOCS.read_text(), re.DOTALL)

    assert fsm.diagram(name) in drawn


@pytest.mark.parametrize("name", sorted(fsm.TABLES))
def test_every_state_but_the_first_can_be_reached(name: str) -> None:
    table = fsm.TABLES[name]
    states = {s for s, _ in table} | set(table.values())
    first = next(iter(table))[0]

    assert set(table.values()) | {first} == states


def test_an_illegal_event_is_a_conflict_that_names_both() -> None:
    with pytest.raises(ConflictError, match="'succeed' is not legal in state.*pending"):
        advance(ACTION, ActionState.PENDING, "succeed")


@given(st.lists(st.sampled_from(sorted({event for _, event in ACTION}))))
def test_a_complete_or_rolled_back_action_never_moves_again(events: list[str]) -> None:
    state = ActionState.PENDING
    for event in events:
        was = state
        try:
            state = advance(ACTION, state, event)
        except ConflictError:
            continue
        assert was not in (ActionState.COMPLETE, ActionState.ROLLED_BACK)


def test_draining_leads_only_to_decommissioned() -> None:
    assert {t for (s, _), t in GOVERNOR.items() if s is GovernorState.DRAINING} == {
        GovernorState.DECOMMISSIONED
    }


@pytest.mark.parametrize(
    ("in_flight", "rolling_back", "expected"),
    [(0, 0, "stable"), (3, 0, "executing"), (3, 1, "rolling_back"), (0, 1, "rolling_back")],
)
def test_what_a_governor_does_follows_from_its_actions(
    in_flight: int, rolling_back: int, expected: str
) -> None:
    assert fsm.derived_governor_state(in_flight, rolling_back) == expected
