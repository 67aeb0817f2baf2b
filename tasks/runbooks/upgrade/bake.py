"""Versions in their first minutes: one that fails is left again by itself, by everybody.

What Memory counted decides (``governor.bake``). Each verdict is one commit: the pointer's watch,
its receipt, and an alert where a person should know. What follows from it is asked for again until
it has ended.
"""

from collections.abc import Sequence
from dataclasses import replace

from governor.bake import Outcomes, Verdict, judge
from governor.errors import ConflictError, PolicyError
from governor.fsm import RUN_OPEN, RunState
from governor.paths import run_path
from governor.records import SYSTEM_ACCOUNT
from governor.runs import Run
from governor.times import elapsed_ms
from ports import Ports
from ports.alerts import Alert
from ports.documents import Document, Update, Write, every
from tasks.governors import broadcast, policies
from tasks.receipts import troubles
from tasks.receipts.commit import alert, commit_once, receipt
from tasks.runbooks import upgrade_policy
from tasks.runbooks.upgrade import back, comparison, watches
from tasks.runbooks.upgrade.comparison import PolicyUpgrade
from tasks.runbooks.upgrade.watches import MEMBERS, Watch, Wave
from tasks.sweep import isolating_errors


def look(ports: Ports) -> None:
    """Judge each version that is watched, and go on with what a verdict has set off."""
    for pointer in every(ports.documents, "policies"):
        for wave in MEMBERS:
            watch = watches.of(pointer, wave)
            if watch and watch.state in broadcast.WATCHED:
                with isolating_errors(pointer.path):
                    _look(ports, pointer, wave, watch)


def _look(ports: Ports, pointer: Document, wave: Wave, watch: Watch) -> None:
    try:
        if watch.state == "watching":
            pointer, watch = _judge(ports, pointer, wave, watch)
        if watch.state == "spreading":
            _follow(ports, pointer, wave, watch, _spread(ports, watch))
        if watch.state == "returning":
            _follow(ports, pointer, wave, watch, _return(ports, pointer, wave, watch))
    except PolicyError as error:
        troubles.policy_unusable(ports, error, *policies.plan_of(pointer))
    except ConflictError:
        pass  # the pointer was moved meanwhile: the next look sees how


def _judge(ports: Ports, pointer: Document, wave: Wave, watch: Watch) -> tuple[Document, Watch]:
    sku_id, plan_type = policies.plan_of(pointer)
    new, before = ports.slots.outcomes(watch.digest), watch.known
    policy = policies.read(ports, sku_id, plan_type, watch.version)
    verdict = judge(new, before, policy.bake, is_over=watches.is_over(watch, ports))
    if verdict == "watching":
        return pointer, watch
    after = watch.evolve(state=_state_after(verdict, pointer, wave, watch))
    status = "passed" if after.state == "spreading" else after.state
    proof = receipt(
        ports,
        "policy_baked",
        SYSTEM_ACCOUNT,
        f"{watch.run_id}/{wave}",
        status=status,
        duration_ms=elapsed_ms(watch.flipped_at, ports.clock.now()),
        run_id=watch.run_id,
        sku_id=sku_id,
        plan_type=plan_type,
        policy_version=watch.version,
        policy_digest=watch.digest,
        previous_version=watch.previous_version,
        wave=wave,
        actions_ended=new.ended,
        actions_timed_out=new.timed_out,
        actions_failed=new.failed,
        rollbacks_failed=new.rollback_failed,
        previous_ended=before.ended,
        previous_failing=before.failing,
        returns_to=_goal(pointer, wave) if after.state == "returning" else None,
    )
    raised, told = _tell(ports, pointer, wave, after, new)
    data = {**pointer.data, MEMBERS[wave]: after.document()}
    if after.state == "passed":
        data["baked"] = [*watches.baked(pointer.data), watch.version]
    revision = _commit(ports, pointer, data, [proof, *raised], told)
    return replace(pointer, data=data, revision=revision), after


def _commit(
    ports: Ports,
    pointer: Document,
    data: dict[str, object],
    more: Sequence[Write],
    told: Alert | None,
) -> str:
    """Commit what became of a watch; the pointer's new revision."""
    revision, *_ = commit_once(ports, [Update(pointer.path, data, pointer.revision), *more])
    if told:
        ports.alerts.send(told)
    broadcast.tell(ports, *policies.plan_of(pointer))
    return revision


def _state_after(verdict: Verdict, pointer: Document, wave: Wave, watch: Watch) -> str:
    match verdict:
        case "failing":
            return "returning" if _goal(pointer, wave) else "stuck"
        case "passed" if wave == "canary":
            return "spreading"
    return verdict


def _goal(pointer: Document, wave: Wave) -> str | None:
    """The version to return to: the newest that completed its bake, and that was not left."""
    present = str(pointer.data["policy_version"])
    if wave == "canary":
        return present  # no other has left it
    return watches.newest_good(pointer.data, but=present)


def _tell(
    ports: Ports, pointer: Document, wave: Wave, after: Watch, new: Outcomes
) -> tuple[Sequence[Write], Alert | None]:
    """The alert of a verdict that a person should know of."""
    plan = "/".join(policies.plan_of(pointer))
    found = f"{new.failing} of {new.ended} actions under policy {plan} {after.version} failed"
    match after.state:
        case "returning":
            words = f"{found}; everybody returns to {_goal(pointer, wave)} by itself"
        case "stuck":
            words = (
                f"{found}, and no version is known to be good. Look at it now: "
                f"ggen policy rollback {plan.replace('/', ' ')} --to VERSION"
            )
        case "inconclusive":
            words = (
                f"{found} while it was watched: too few ended, or those of one account alone "
                "failed, or not many more than before. It stays as it is; look at them: "
                "ggen actions list --state failed"
            )
        case _:
            return [], None
    return _alert(ports, wave, after, words)


def _alert(ports: Ports, wave: Wave, after: Watch, words: str) -> tuple[Sequence[Write], Alert]:
    return alert(
        ports,
        "warning" if after.state == "inconclusive" else "critical",
        f"policy_bake_{after.state}",
        SYSTEM_ACCOUNT,
        f"{after.run_id}/{wave}",
        words,
    )


def _spread(ports: Ports, watch: Watch) -> Run | None:
    """Canaries are well: begin the upgrade of all, as its caller asked for it."""
    found = ports.documents.get(run_path(watch.run_id))
    if found is None:
        return None
    asked = comparison.asked_of(Run.stored(found.data))
    return upgrade_policy.ask(ports, asked.evolve(canary=[], percent=None))


def _return(ports: Ports, pointer: Document, wave: Wave, watch: Watch) -> Run | None:
    sku_id, plan_type = policies.plan_of(pointer)
    goal = _goal(pointer, wave)
    if goal is None:
        return None
    policy = back.register(ports, sku_id, plan_type, goal)
    asked = PolicyUpgrade(
        sku_id=sku_id,
        plan_type=plan_type,
        policy_version=policy.policy_version,
        returns_from=watch.version,
    )
    return upgrade_policy.ask(ports, asked)


def _follow(ports: Ports, pointer: Document, wave: Wave, watch: Watch, run: Run | None) -> None:
    """Note the end of the run that a verdict has set off, where it did not flip the pointer."""
    if run is not None and run.state in RUN_OPEN:
        return
    is_done = run is None or run.state is RunState.COMPLETE
    well = "passed" if watch.state == "spreading" else "returned"
    after = watch.evolve(state=well if is_done else "stuck")
    raised: Sequence[Write] = []
    told: Alert | None = None
    if run and not is_done:
        plan = "/".join(policies.plan_of(pointer))
        words = (
            f"policy {plan} {watch.version} stays as it is: the run that {watch.state} set off "
            f"ended badly ({run.error_code}). See: ggen runs show {run.run_id}"
        )
        raised, told = _alert(ports, wave, after, words)
    _commit(ports, pointer, {**pointer.data, MEMBERS[wave]: after.document()}, raised, told)
