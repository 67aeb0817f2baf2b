"""The compatibility of policies: a table of every rule, and an oracle that knows no rule."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

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
    "dispatch_weight": 2,
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
    return Policy.model_validate_json(json.dumps(document), strict=True)


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
    "weight-lowered": (
        policy(("dispatch_weight", 1)),
        "dispatch_weight",
        "2",
        "1",
    ),
    "weight-raised": (
        policy(("dispatch_weight", 3)),
        "dispatch_weight",
        "2",
        "3",
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

    assert TABLE.keys() | BACKWARDS.keys() | versions | {"rollback-rerouted"} == RULES.keys()


URL, UNDONE = "https://crm.example/", "signals.seats.changed.rollback_url"


def by_http(execute: str, rollback: str | None, version: str = "2.0.0") -> Policy:
    spec = {"execute_url": f"{URL}{execute}", "rollback_url": rollback and f"{URL}{rollback}"}
    return policy(("actions/resize", spec), version=version)


@pytest.mark.parametrize(
    ("old", "new", "rules"),
    [
        (("seats", "undo"), ("seats", "undo"), []),
        (("seats", "undo"), ("places", "undo"), ["signal-rerouted"]),
        (("seats", "undo"), ("seats", "other"), ["rollback-rerouted"]),
        (("seats", "undo"), ("seats", None), ["rollback-given-up"]),
        (("seats", None), ("seats", "undo"), ["rollback-added"]),
        (("seats", None), ("seats", None), []),
    ],
)
def test_requests_are_compared_by_their_urls(
    old: tuple[str, str | None], new: tuple[str, str | None], rules: list[str]
) -> None:
    found = check(by_http(*new), [by_http(*old, version="1.2.3")])

    urls = [f"{URL}{name}" if name else "" for name in (old[1], new[1])]
    if rules == ["signal-rerouted"]:
        urls = [f"{URL}{name}" for name in (old[0], new[0])]
    path = "signals.seats.changed" if rules == ["signal-rerouted"] else UNDONE
    assert found == [Finding(rule, path, urls[0], urls[1], "1.2.3") for rule in rules]


def test_a_handler_and_a_request_are_not_the_same() -> None:
    for old, new in ((OLD, by_http("x", "y")), (by_http("x", "y", "1.2.3"), policy())):
        rules = [finding.rule for finding in check(new, [old])]
        assert "signal-rerouted" in rules


def _rules(*changes: tuple[str, Any]) -> list[str]:
    return sorted({finding.rule for finding in check(policy(*changes), [OLD])})


SPARE_MOVE = {"source": "over", "event": "pay", "target": "paid"}
KINDS: Mapping[tuple[str, str], tuple[list[tuple[str, Any]], list[str]]] = {
    ("signal", "added"): (
        [("signals/x", "idle"), ("permissions", ["resize", "idle"])],
        ["signal-added"],
    ),
    ("signal", "removed"): ([("signals", {"x": "idle"})], ["signal-removed"]),
    ("signal", "narrowed"): ([("permissions", ["idle"])], ["signal-removed"]),
    ("signal", "widened"): ([("permissions", ["resize", "idle"])], []),  # no signal leads there
    ("signal", "renamed"): (
        [("signals", {"seats.moved": "resize"})],
        ["signal-added", "signal-removed"],
    ),
    ("action", "added"): ([("actions/more", ACTION)], ["action-unused-changed"]),
    ("action", "removed"): ([("actions/idle", None)], ["action-unused-changed"]),
    ("action", "narrowed"): (
        [("actions/resize/timeout_ms", 499), ("actions/resize/queue_timeout_ms", 1000)],
        ["queue-timeout-shortened", "timeout-shortened"],
    ),
    ("action", "widened"): (
        [("actions/resize/timeout_ms", 501), ("actions/resize/rollback_timeout_ms", 101)],
        ["rollback-timeout-lengthened", "timeout-lengthened"],
    ),
    ("action", "renamed"): (  # a name is the policy's own; the handler is the same
        [("actions/other", ACTION), ("signals/seats.changed", "other"), ("permissions", ["other"])],
        [],
    ),
    ("state", "added"): ([("states", [*BASE["states"], "new"])], ["state-added"]),
    ("state", "removed"): ([("states", ["trial", "paid", "over"])], ["state-removed"]),
    ("state", "narrowed"): ([("initial_state", "paid")], ["initial-state-changed"]),
    ("state", "widened"): ([("transitions", [*MOVES, SPARE_MOVE])], ["transition-added"]),
    ("state", "renamed"): (
        [("states", ["trial", "paid", "over", "renamed"])],
        ["state-added", "state-removed"],
    ),
    ("transition", "added"): ([("transitions", [*MOVES, SPARE_MOVE])], ["transition-added"]),
    ("transition", "removed"): ([("transitions", [])], ["transition-removed"]),
    ("transition", "narrowed"): (
        [("transitions", [{**MOVES[0], "target": "over"}, MOVES[1]])],
        ["transition-retargeted"],
    ),
    ("transition", "renamed"): (
        [("transitions", [{**MOVES[0], "event": "buy"}, MOVES[1]])],
        ["transition-added", "transition-removed"],
    ),
    ("quota", "added"): ([("quota/prices", {})], ["price-lowered"]),  # its default is 0
    ("quota", "removed"): (
        [("quota/concurrent_actions", None)],  # its default, 20, is above the maximum
        ["invalid"],
    ),
    ("quota", "narrowed"): (
        [("quota/max_concurrent_actions", 9), ("quota/monthly_budget_usd", "1")],
        ["budget-lowered", "quota-lowered"],
    ),
    ("quota", "widened"): (
        [("quota/max_concurrent_actions", 11), ("quota/monthly_budget_usd", "51")],
        ["budget-raised", "quota-raised"],
    ),
    ("quota", "renamed"): ([("quota/monthly", 5)], ["invalid"]),
    ("price", "narrowed"): ([("quota/prices/action_usd", "0.02")], ["price-raised"]),
    ("price", "widened"): ([("quota/prices/action_usd", "0.001")], ["price-lowered"]),
    **{
        (member, "retyped"): ([(path, value)], ["invalid"])
        for member, path, value in (
            ("signal", "signals/seats.changed", ["resize"]),
            ("action", "actions/resize/timeout_ms", "500"),
            ("state", "states", "trial"),
            ("transition", "transitions", [["trial", "pay", "paid"]]),
            ("quota", "quota/monthly_actions", "1000"),
            ("price", "quota/prices/action_usd", True),
        )
    },
}
"""What is changed, and in which way: the rules that find it; "invalid" is no policy at all."""


@pytest.mark.parametrize(("member", "kind"), sorted(KINDS))
def test_a_member_changed_in_some_way_is_found_by_these_rules(member: str, kind: str) -> None:
    changes, rules = KINDS[member, kind]
    if rules == ["invalid"]:
        with pytest.raises(ValidationError):
            policy(*changes)
    else:
        assert _rules(*changes) == rules


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
    found = [f for f in check(new, [OLD]) if f.path == "policy_version"]

    versions = "1.2.3", new.policy_version, "1.2.3"
    assert found == [Finding(rule, "policy_version", *versions) for rule in rules]


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
    assert names_of(second) == {
        "signals.seats.changed",
        "actions.resize",
        "actions.idle",
        *(f"states.{state}" for state in BASE["states"]),
    }
    again = policy(("signals/seats.other", "idle"), version="4.0.0")
    gone = policy(version="5.0.0")
    last = policy(("signals/x", "idle"), ("signals/seats.other", "idle"), version="6.0.0")
    assert reused(last, [first, second, again, gone]) == [
        Finding("reserved-name-reused", "signals.seats.other", "", "seats.other", "4.0.0"),
        Finding("reserved-name-reused", "signals.x", "", "x", "1.0.0"),
    ]
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
        if now is None or now.target != was.target or now.timeout_ms < was.timeout_ms:
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
