"""The compatibility of policies: a table of every rule, and an oracle that knows no rule."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from governor.compatibility import (
    RULES,
    Bump,
    Finding,
    check,
    is_compatible,
    names_of,
    number_of,
    reused,
)
from governor.policy import ActionSpec, Policy, Quota, Transition

ACTION = {
    "handler": "crm.resize",
    "timeout_ms": 500,
    "rollback_timeout_ms": 100,
    "queue_timeout_ms": 15_000,
    "recoverable": True,
    "deadline_from": "start",
}
BASE: dict[str, Any] = {
    "sku_id": "crm",
    "plan_type": "starter",
    "policy_version": "1.2.3",
    "quota": {
        "monthly_actions": 1000,
        "concurrent_actions": 5,
        "max_concurrent_actions": 10,
        "monthly_budget_usd": "50",
        "prices": {"action_usd": "0.01", "concurrent_action_month_usd": "0.5"},
    },
    "actions": {"resize": ACTION, "idle": {**ACTION, "handler": "crm.idle"}},
    "signals": {"seats.changed": "resize"},
    "permissions": ["resize"],
    "initial_state": "trial",
    "states": ["trial", "paid", "over", "spare"],
    "transitions": [
        {"source": "trial", "event": "pay", "target": "paid"},
        {"source": "paid", "event": "end", "target": "over"},
    ],
}


def policy(*changes: tuple[str, Any], version: str = "2.0.0") -> Policy:
    """The base with members changed, by their path; None removes one."""
    document = copy.deepcopy(BASE)
    document["policy_version"] = version
    for path, value in changes:
        *way, last = path.split("/")
        place = document
        for name in way:
            place = place[name]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return Policy.model_validate_json(json.dumps(document))


OLD = policy(version="1.2.3")
LENGTHENED = ("lengthened", 20_000)
MOVES = BASE["transitions"]
TABLE: Mapping[str, tuple[Policy, str, str, str]] = {
    "signal-removed": (policy(("permissions", [])), "signals.seats.changed", "resize", ""),
    "signal-added": (
        policy(("permissions", ["resize", "idle"]), ("signals/x", "idle")),
        "signals.x",
        "",
        "idle",
    ),
    "signal-rerouted": (
        policy(("permissions", ["resize", "idle"]), ("signals/seats.changed", "idle")),
        "signals.seats.changed",
        "crm.resize",
        "crm.idle",
    ),
    "rollback-given-up": (
        policy(("actions/resize/recoverable", False)),
        "signals.seats.changed.recoverable",
        "True",
        "False",
    ),
    "deadline-from-submit": (
        policy(("actions/resize/deadline_from", "submit")),
        "signals.seats.changed.deadline_from",
        "start",
        "submit",
    ),
    "state-removed": (
        policy(("states", ["trial", "paid", "over"])),
        "states.spare",
        "spare",
        "",
    ),
    "state-added": (
        policy(("states", [*BASE["states"], "new"])),
        "states.new",
        "",
        "new",
    ),
    "transition-removed": (
        policy(("transitions", MOVES[:1])),
        "transitions.paid.end",
        "over",
        "",
    ),
    "transition-added": (
        policy(("transitions", [*MOVES, {"source": "over", "event": "pay", "target": "paid"}])),
        "transitions.over.pay",
        "",
        "paid",
    ),
    "transition-retargeted": (
        policy(("transitions", [{**MOVES[0], "target": "over"}, MOVES[1]])),
        "transitions.trial.pay",
        "paid",
        "over",
    ),
    "initial-state-changed": (policy(("initial_state", "paid")), "initial_state", "trial", "paid"),
    "budget-lowered": (
        policy(("quota/monthly_budget_usd", "49")),
        "quota.monthly_budget_usd",
        "50",
        "49",
    ),
    "budget-raised": (
        policy(("quota/monthly_budget_usd", "51")),
        "quota.monthly_budget_usd",
        "50",
        "51",
    ),
    "price-raised": (
        policy(("quota/prices/action_usd", "0.02")),
        "quota.prices.action_usd",
        "0.01",
        "0.02",
    ),
    "price-lowered": (
        policy(("quota/prices/action_usd", "0")),
        "quota.prices.action_usd",
        "0.01",
        "0",
    ),
    "action-unused-changed": (
        policy(("actions/idle", None)),
        "actions.idle",
        "crm.idle",
        "",
    ),
    **{
        f"{kind}-{how}": (
            policy((f"actions/resize/{name}", value)),
            f"signals.seats.changed.{name}",
            str(ACTION[name]),
            str(value),
        )
        for kind, name in (
            ("timeout", "timeout_ms"),
            ("rollback-timeout", "rollback_timeout_ms"),
            ("queue-timeout", "queue_timeout_ms"),
        )
        for how, value in (("shortened", int(ACTION[name]) - 1), LENGTHENED)
    },
    **{
        f"quota-{how}": (
            policy(("quota/monthly_actions", value)),
            "quota.monthly_actions",
            "1000",
            str(value),
        )
        for how, value in (("lowered", 999), ("raised", 1001))
    },
}
"""Rule -> a version that breaks it and nothing else, and the finding's path and values."""

BACKWARDS = {"rollback-added": "rollback-given-up", "deadline-from-start": "deadline-from-submit"}
"""Rules that the table shows by the change that is undone."""


@pytest.mark.parametrize("rule", sorted(TABLE))
def test_a_change_is_found_by_its_rule_alone(rule: str) -> None:
    new, path, old_value, new_value = TABLE[rule]

    assert check(new, [OLD]) == [Finding(rule, path, old_value, new_value, "1.2.3")]
    assert is_compatible(check(new, [OLD])) is (RULES[rule] is not Bump.MAJOR)


@pytest.mark.parametrize("rule", sorted(BACKWARDS))
def test_a_change_taken_back_is_found_by_its_own_rule(rule: str) -> None:
    changed = TABLE[BACKWARDS[rule]][0]
    back = policy(version="3.0.0")

    assert [finding.rule for finding in check(back, [changed])] == [rule]


def test_every_rule_has_its_line() -> None:
    versions = {"version-not-higher", "version-raised-too-little", "reserved-name-reused"}

    assert TABLE.keys() | BACKWARDS.keys() | versions == RULES.keys()


@pytest.mark.parametrize(
    ("new", "rules"),
    [
        (policy(version="1.2.4"), []),
        (policy(version="1.2.3"), []),
        (policy(("actions/idle", None), version="1.2.3"), ["version-not-higher"]),
        (policy(("actions/idle", None), version="1.2.2"), ["version-not-higher"]),
        (policy(("actions/idle", None), version="1.10.0"), []),
        (policy(("quota/monthly_actions", 1001), version="1.2.4"), ["version-raised-too-little"]),
        (policy(("quota/monthly_actions", 1001), version="1.3.0"), []),
        (policy(("quota/monthly_actions", 999), version="1.3.0"), ["version-raised-too-little"]),
        (policy(("quota/monthly_actions", 999), version="2.0.0"), []),
        (policy(version="1.1.9"), ["version-not-higher"]),
    ],
)
def test_a_version_is_raised_by_as_much_as_it_changes(new: Policy, rules: list[str]) -> None:
    found = [f.rule for f in check(new, [OLD]) if f.path == "policy_version"]

    assert found == rules


def test_a_version_is_held_against_every_one_that_is_in_use() -> None:
    older = policy(("quota/monthly_actions", 2000), version="1.0.0")
    new = policy(("quota/monthly_actions", 1500), version="2.0.0")

    assert [(f.rule, f.against) for f in check(new, [OLD, older])] == [
        ("quota-lowered", "1.0.0"),
        ("quota-raised", "1.2.3"),
    ]
    assert not is_compatible(check(new, [OLD, older]))
    assert check(new, []) == []


def test_a_name_that_was_taken_away_is_reserved_for_ever() -> None:
    first = policy(("signals/x", "idle"), version="1.0.0")
    second = policy(version="2.0.0")
    third = policy(("signals/x", "resize"), version="3.0.0")

    assert reused(third, [second, first]) == [
        Finding("reserved-name-reused", "signals.x", "", "x", "1.0.0")
    ]
    assert reused(second, [first]) == []
    assert names_of(first) - names_of(second) == {"signals.x"}
    assert number_of("1.10.0") > number_of("1.9.9")


# -- An oracle that knows no rule: what a customer could do, it can do


def _reachable(policy: Policy) -> set[str]:
    reached, todo = {policy.initial_state}, [policy.initial_state]
    while todo:
        state = todo.pop()
        for move in policy.transitions:
            if move.source == state and move.target not in reached:
                reached.add(move.target)
                todo.append(move.target)
    return reached


def _is_as_good(old: Policy, new: Policy) -> bool:
    """Whether a customer of the old version can go on, in every state it may have reached."""
    for state in _reachable(old):
        if state not in new.states:
            return False
        for move in old.transitions:
            if move.source == state and move not in new.transitions:
                return False
    for kind, name in old.route().items():
        was, now = old.actions[name], new.actions.get(new.route().get(kind, ""))
        if now is None or now.handler != was.handler or now.timeout_ms < was.timeout_ms:
            return False
    return (
        new.quota.monthly_actions >= old.quota.monthly_actions
        and new.quota.concurrent_actions >= old.quota.concurrent_actions
        and new.quota.max_concurrent_actions >= old.quota.max_concurrent_actions
    )


STATES = ("a", "b", "c")
ACTIONS = st.builds(
    ActionSpec,
    handler=st.sampled_from(["h.one", "h.two"]),
    timeout_ms=st.sampled_from([100, 500]),
    recoverable=st.booleans(),
)


@st.composite
def policies(draw: st.DrawFn, version: str) -> Policy:
    states = draw(st.sets(st.sampled_from(STATES), min_size=1))
    actions = draw(st.dictionaries(st.sampled_from(["x", "y"]), ACTIONS, min_size=1))
    named = st.sampled_from(sorted(actions))
    places = st.sampled_from(sorted(states))
    moves = draw(
        st.dictionaries(st.tuples(places, st.sampled_from(["go", "stop"])), places, max_size=4)
    )
    return Policy(
        sku_id="crm",
        plan_type="starter",
        policy_version=version,
        quota=Quota(
            monthly_actions=draw(st.sampled_from([10, 20])),
            concurrent_actions=draw(st.sampled_from([1, 2])),
            max_concurrent_actions=draw(st.sampled_from([2, 3])),
        ),
        actions=actions,
        signals=draw(st.dictionaries(st.sampled_from(["s.one", "s.two"]), named, min_size=1)),
        permissions=frozenset(draw(st.sets(named))),
        initial_state=draw(places),
        states=frozenset(states),
        transitions=tuple(
            Transition(source=source, event=event, target=target)
            for (source, event), target in sorted(moves.items())
        ),
    )


@given(policies("1.0.0"), policies("2.0.0"))
def test_what_is_called_compatible_takes_nothing_away(old: Policy, new: Policy) -> None:
    if is_compatible(check(new, [old])):
        assert _is_as_good(old, new)


@given(policies("1.0.0"))
def test_the_same_content_in_a_higher_version_changes_nothing(old: Policy) -> None:
    assert check(old.model_copy(update={"policy_version": "1.0.1"}), [old]) == []
