"""Actions wait in a list for each tenant; one message has a process serve many of them.

A process that is called takes the action whose turn it is, carries it out, and takes the next one,
until none waits or half a second has passed. A message that is lost is no harm: after a second the
reaper calls a process. Which one starts an action is decided by its claim.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from governor import actions as rules
from governor.actions import Action
from governor.errors import ConflictError, OutageError
from governor.fsm import ActionState
from governor.records import ProcessClaim
from governor.times import microseconds, timestamp
from ports import Ports
from ports.dispatch import Turn, Waiting
from ports.slots import Slot
from tasks import publish
from tasks.actions import execute, transitions
from tasks.actions.execute import Finished
from tasks.actions.transitions import Held
from tasks.outcomes import DONE, Outcome
from tasks.receipts.fence import or_kill_self

_LOG = logging.getLogger("ggen.actions")
SERVES_S = 0.5
"""How long a process goes on taking actions before its message ends."""

STAYS_MS = 20
"""How long it waits for another one where there is none: a message costs more."""

Begun = Callable[[Action, Turn], None]
Ended = Callable[[Action, Outcome], None]


def enqueue(ports: Ports, actions: Sequence[Action]) -> None:
    """Have actions carried out; where Memory is away the reaper does it later."""
    now_us = microseconds(timestamp(ports.clock.now()))
    waiting = [
        Waiting(
            Slot.of(action),
            _pace_of(action),
            rules.hard_limit_ms(action),
            microseconds(action.accepted_at),
            now_us,
            action.dispatch_weight,
        )
        for action in actions
    ]
    try:
        calls = ports.dispatch.enqueue(waiting)
    except OutageError as error:
        names = ", ".join(action.action_id for action in actions)
        _LOG.warning("waits for the reaper: action %s: %s", names, error)
        return
    for each, call in zip(waiting, calls, strict=True):
        publish.call(each.limit_ms, call)


def _pace_of(action: Action) -> str:
    """The name by which it is known how long such actions take."""
    if action.execute_url:
        return f"{action.handler}@{(action.policy_digest or '')[:12]}"
    return action.handler


def call_for_unserved(ports: Ports) -> None:
    """Call a process for each list that waits and that no process serves: its message was lost."""
    for limit_ms, call in ports.dispatch.unserved():
        publish.call(limit_ms, call)


def serve(ports: Ports, limit_ms: int, called_in: int, begun: Begun, ended: Ended) -> int:
    """Carry out actions of one hard limit in their turn; how many.

    Args:
        ports: everything it needs.
        limit_ms: the hard limit of each; the message's own is half a second more.
        called_in: the round in which it was called; a later one has its own processes.
        begun: called with each action before it is carried out.
        ended: called with what became of it, once that is committed.

    Raises:
        OutageError: Memory or Documents do not answer; the reaper finds what was taken.
    """
    server = _Server(ports, limit_ms, called_in, begun, ended)
    try:
        while server.go_on():
            pass
    finally:
        server.settle()
    server.leave()
    return server.served


@dataclass(slots=True)
class _Server:
    """One process's way through the lists of one hard limit.

    ``_finished``: its handler has returned; its end is committed with the claim of the next action,
    where that one's handler is short. ``_untold``: it has ended so, and Flower is to hear of it.
    """

    ports: Ports
    limit_ms: int
    called_in: int
    begun: Begun
    ended: Ended
    served: int = 0
    _until_s: float | None = None
    _is_left: bool = False
    _has_waited: bool = False
    _last: tuple[str, float] | None = None
    _finished: Finished | None = None
    _untold: Finished | None = None

    def go_on(self) -> bool:
        """Carry out the action whose turn it is; False when none is, or the time is up."""
        clock, is_first = self.ports.clock, self._until_s is None
        now_s = clock.monotonic_s()
        if self._until_s is None:
            self._until_s = now_s + SERVES_S
        claim = self.ports.processes.claim(clock.now())
        stays = not self._has_waited and now_s + STAYS_MS / 1000 < self._until_s
        turn = self.ports.dispatch.take(
            self.limit_ms,
            _name(claim),
            claim,
            called_in=self.called_in if is_first else None,
            ended=self._last,
            stays_ms=STAYS_MS if stays else 0,
        )
        self._last = None
        self._has_waited = turn.stays
        if turn.stays:
            self.settle()
            self.ports.dispatch.wait(self.limit_ms, _name(claim), STAYS_MS)
            return clock.monotonic_s() < self._until_s
        if turn.slot is None:
            self._is_left = True
            return False
        if turn.call.count or not turn.is_short:
            self.settle()  # nothing that may last comes between a handler and its end
        publish.call(self.limit_ms, turn.call)
        self.served += 1
        self._serve(turn, turn.slot)
        return clock.monotonic_s() < self._until_s

    def settle(self) -> None:
        """End what has finished, whatever came after it."""
        or_kill_self(self._finish)

    def leave(self) -> None:
        """Call another process if actions wait; one that got nothing has left already."""
        if self._is_left:
            return
        claim = self.ports.processes.claim(self.ports.clock.now())
        try:
            call = self.ports.dispatch.leave(self.limit_ms, _name(claim), self._last)
        except OutageError as error:
            _LOG.warning("who waits is left to the reaper: %s", error)
            return
        publish.call(self.limit_ms, call)

    def _serve(self, turn: Turn, slot: Slot) -> None:
        found = transitions.load(self.ports, slot.account_id, slot.action_id)
        if found is None or found.action.state is not ActionState.PENDING:
            self.settle()  # this one was put back while another process was at it, or it has ended
            return
        self.begun(found.action, turn)
        ended = self._carried_out(found)
        if isinstance(ended, Finished):
            self._finished = ended
        else:
            self.ended(found.action, ended)
        if ended.run_s > 0:
            self._last = _pace_of(found.action), ended.run_s * 1000

    def _carried_out(self, found: Held) -> Finished | Outcome:
        claim = self.ports.processes.claim(self.ports.clock.now())
        claimed = execute.ready(self.ports, found, claim)
        if isinstance(claimed, Outcome):
            self.settle()
            return claimed
        held = or_kill_self(lambda: self._claimed(found, claimed))
        if held is None:
            return execute.ELSEWHERE
        ended = or_kill_self(lambda: execute.run(self.ports, held))
        told, self._untold = self._untold, None
        if told:
            self.ended(told.after, replace(DONE, run_s=told.run_s))
        return ended

    def _claimed(self, found: Held, claimed: Action) -> Held | None:
        """Commit a claim, and with it the end of the action before; apart where one is refused."""
        before = self._finished
        if before is None:
            return transitions.claim(self.ports, found, claimed)
        try:
            held = transitions.commit(
                self.ports, found, claimed, *before.writes, asks_for_seal=False
            )
        except ConflictError:
            self._finish()
            return transitions.claim(self.ports, found, claimed)
        except OutageError:
            self._finish(was_tried=True)
            return transitions.claim(self.ports, found, claimed)
        self._finished, self._untold = None, before
        transitions.free_slot(self.ports, before.after)
        return held

    def _finish(self, *, was_tried: bool = False) -> None:
        finished, self._finished = self._finished, None
        if finished:
            outcome = execute.finish(self.ports, finished, was_tried=was_tried)
            self.ended(finished.after, outcome)


def _name(claim: ProcessClaim) -> str:
    return f"{claim.host}/{claim.namespace}/{claim.pid}"
