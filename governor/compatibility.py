"""Whether one version of a policy may take the place of another, rule by rule.

Compatible means: what a customer could do under the old version, in every state it could reach, it
can do under the new one, by the same handler, with no less time and no smaller limits. The list of
rules is complete for this model: a policy is finite, and each of its members is compared here.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from governor.policy import ActionSpec, Policy


class Bump(IntEnum):
    """How much of a version a change must raise (semver.org)."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3


RULES: Mapping[str, Bump] = {
    "signal-removed": Bump.MAJOR,
    "signal-added": Bump.MINOR,
    "signal-rerouted": Bump.MAJOR,
    "timeout-shortened": Bump.MAJOR,
    "timeout-lengthened": Bump.MINOR,
    "rollback-timeout-shortened": Bump.MAJOR,
    "rollback-timeout-lengthened": Bump.MINOR,
    "queue-timeout-shortened": Bump.MAJOR,
    "queue-timeout-lengthened": Bump.MINOR,
    "rollback-given-up": Bump.MAJOR,
    "rollback-rerouted": Bump.MAJOR,
    "rollback-added": Bump.MINOR,
    "deadline-from-submit": Bump.MAJOR,
    "deadline-from-start": Bump.MINOR,
    "state-removed": Bump.MAJOR,
    "state-added": Bump.MINOR,
    "transition-removed": Bump.MAJOR,
    "transition-retargeted": Bump.MAJOR,
    "transition-added": Bump.MINOR,
    "initial-state-changed": Bump.MINOR,
    "quota-lowered": Bump.MAJOR,
    "quota-raised": Bump.MINOR,
    "budget-lowered": Bump.MAJOR,
    "budget-raised": Bump.MINOR,
    "price-raised": Bump.MAJOR,
    "price-lowered": Bump.MINOR,
    "weight-lowered": Bump.MAJOR,
    "weight-raised": Bump.MINOR,
    "action-unused-changed": Bump.PATCH,
    "reserved-name-reused": Bump.MAJOR,
    "version-not-higher": Bump.MAJOR,
    "version-raised-too-little": Bump.MAJOR,
}
"""Every rule, and what a change under it must raise. MAJOR: it is not compatible."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One difference: its rule, where it is, both values, and the version it clashes with."""

    rule: str
    path: str
    old: str
    new: str
    against: str

    @property
    def bump(self) -> Bump:
        """What it must raise."""
        return RULES[self.rule]

    @property
    def is_breaking(self) -> bool:
        """Whether a customer of the old version would lose something."""
        return self.bump is Bump.MAJOR


def check(new: Policy, former: Sequence[Policy]) -> list[Finding]:
    """Every finding of a version against all versions that are held or acted under, in order.

    Args:
        new: the version that is to come into force.
        former: the versions of its plan that a governor or an action in flight holds.
    """
    return sorted({finding for old in former for finding in _against(old, new)})


def is_compatible(findings: Sequence[Finding]) -> bool:
    """Whether nothing that was found breaks anything."""
    return not any(finding.is_breaking for finding in findings)


def _against(old: Policy, new: Policy) -> Iterator[Finding]:
    found = [Finding(*each, old.policy_version) for each in _differences(old, new)]
    yield from found
    needed = max((finding.bump for finding in found), default=Bump.NONE)
    versions = old.policy_version, new.policy_version
    if old != new and _raised(*versions) is Bump.NONE:
        yield Finding("version-not-higher", "policy_version", *versions, old.policy_version)
    elif needed > _raised(*versions):
        yield Finding("version-raised-too-little", "policy_version", *versions, old.policy_version)


def _raised(old: str, new: str) -> Bump:
    """Which part of the version was raised; NONE where it is not higher."""
    before, after = number_of(old), number_of(new)
    if after <= before:
        return Bump.NONE
    if after[0] > before[0]:
        return Bump.MAJOR
    return Bump.MINOR if after[1] > before[1] else Bump.PATCH


def number_of(version: str) -> tuple[int, ...]:
    """A version as numbers, which sort as versions do."""
    return tuple(map(int, version.split(".")))


_Row = tuple[str, str, str, str]


def _differences(old: Policy, new: Policy) -> Iterator[_Row]:
    yield from _signals(old, new)
    yield from _unused(old, new)
    yield from _states(old, new)
    yield from _transitions(old, new)
    yield from _quota(old, new)


def _signals(old: Policy, new: Policy) -> Iterator[_Row]:
    before, after = old.route(), new.route()
    for kind in sorted(before.keys() | after.keys()):
        path = f"signals.{kind}"
        if kind not in after:
            yield "signal-removed", path, before[kind], ""
        elif kind not in before:
            yield "signal-added", path, "", after[kind]
        else:
            was, now = old.actions[before[kind]], new.actions[after[kind]]
            if was.target != now.target:
                yield "signal-rerouted", path, was.target, now.target
            yield from _action(was, now, path)


def _action(was: ActionSpec, now: ActionSpec, path: str) -> Iterator[_Row]:
    for name in ("timeout", "rollback_timeout", "queue_timeout"):
        before, after = getattr(was, f"{name}_ms"), getattr(now, f"{name}_ms")
        rule = name.replace("_", "-")
        if after != before:
            how = "shortened" if after < before else "lengthened"
            yield f"{rule}-{how}", f"{path}.{name}_ms", str(before), str(after)
    if was.recoverable != now.recoverable:
        rule = "rollback-given-up" if was.recoverable else "rollback-added"
        yield rule, f"{path}.recoverable", str(was.recoverable), str(now.recoverable)
    if was.execute_url and now.execute_url and was.rollback_url != now.rollback_url:
        yield _undone_elsewhere(was, now, path)
    if was.deadline_from != now.deadline_from:
        rule = f"deadline-from-{now.deadline_from}"
        yield rule, f"{path}.deadline_from", was.deadline_from, now.deadline_from


def _undone_elsewhere(was: ActionSpec, now: ActionSpec, path: str) -> _Row:
    rule = "rollback-rerouted"
    if not now.rollback_url:
        rule = "rollback-given-up"
    elif not was.rollback_url:
        rule = "rollback-added"
    return rule, f"{path}.rollback_url", was.rollback_url or "", now.rollback_url or ""


def _unused(old: Policy, new: Policy) -> Iterator[_Row]:
    """Actions that no signal of the plan leads to: their change reaches no customer."""
    met = {*old.route().values(), *new.route().values()}
    for name in sorted((old.actions.keys() | new.actions.keys()) - met):
        was, now = old.actions.get(name), new.actions.get(name)
        if was != now:
            told = [each.target if each else "" for each in (was, now)]
            yield "action-unused-changed", f"actions.{name}", told[0], told[1]


def _states(old: Policy, new: Policy) -> Iterator[_Row]:
    for state in sorted(old.states - new.states):
        yield "state-removed", f"states.{state}", state, ""
    for state in sorted(new.states - old.states):
        yield "state-added", f"states.{state}", "", state
    if old.initial_state != new.initial_state:
        yield "initial-state-changed", "initial_state", old.initial_state, new.initial_state


def _transitions(old: Policy, new: Policy) -> Iterator[_Row]:
    before, after = _moves(old), _moves(new)
    for move in sorted(before.keys() | after.keys()):
        path = f"transitions.{move[0]}.{move[1]}"
        was, now = before.get(move, ""), after.get(move, "")
        if was and not now:
            yield "transition-removed", path, was, ""
        elif now and not was:
            yield "transition-added", path, "", now
        elif was != now:
            yield "transition-retargeted", path, was, now


def _moves(policy: Policy) -> dict[tuple[str, str], str]:
    return {(t.source, t.event): t.target for t in policy.transitions}


def _quota(old: Policy, new: Policy) -> Iterator[_Row]:
    for name in ("monthly_actions", "concurrent_actions", "max_concurrent_actions"):
        before, after = getattr(old.quota, name), getattr(new.quota, name)
        if before != after:
            how = "lowered" if after < before else "raised"
            yield f"quota-{how}", f"quota.{name}", str(before), str(after)
    if old.dispatch_weight != new.dispatch_weight:
        how = "lowered" if new.dispatch_weight < old.dispatch_weight else "raised"
        values = str(old.dispatch_weight), str(new.dispatch_weight)
        yield f"weight-{how}", "dispatch_weight", *values
    was, now = old.quota.monthly_budget_usd, new.quota.monthly_budget_usd
    if was != now:
        rule = "budget-lowered" if now < was else "budget-raised"
        yield rule, "quota.monthly_budget_usd", f"{was:f}", f"{now:f}"
    for name in ("action_usd", "concurrent_action_month_usd"):
        was, now = getattr(old.quota.prices, name), getattr(new.quota.prices, name)
        if was != now:
            rule = "price-raised" if now > was else "price-lowered"
            yield rule, f"quota.prices.{name}", f"{was:f}", f"{now:f}"


# -- Names that are reserved


def names_of(policy: Policy) -> frozenset[str]:
    """The names a version gives a meaning: its signals, actions and states."""
    kinds: Mapping[str, Collection[str]] = {
        "signals": policy.signals,
        "actions": policy.actions,
        "states": policy.states,
    }
    return frozenset(f"{kind}.{name}" for kind, names in kinds.items() for name in names)


def reserved(versions: Sequence[Policy]) -> Mapping[str, str]:
    """The names that some later version took away, and the version that had them last."""
    gone: dict[str, str] = {}
    before: Policy | None = None
    for policy in sorted(versions, key=lambda each: number_of(each.policy_version)):
        if before:
            taken = names_of(before) - names_of(policy)
            gone |= dict.fromkeys(taken, before.policy_version)
        before = policy
    return gone


def reused(new: Policy, versions: Sequence[Policy]) -> list[Finding]:
    """The reserved names a version uses again: receipts use them in their former meaning."""
    gone = reserved(versions)
    return [
        Finding("reserved-name-reused", name, "", name.partition(".")[2], gone[name])
        for name in sorted(names_of(new) & gone.keys())
    ]
