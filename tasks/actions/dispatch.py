"""Actions wait in a list for each tenant; one message has a process serve many of them.

A process that is called takes the action whose turn it is, carries it out, and takes the next one,
until none waits or half a second has passed. A message that is lost is no harm: after a second the
reaper calls somebody. Who may start an action is decided by its claim, as ever.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from governor import actions as rules
from governor.actions import Action
from governor.errors import OutageError
from governor.fsm import ActionState
from governor.records import ProcessClaim
from governor.times import microseconds
from ports import Ports
from ports.dispatch import Turn, Waiting
from ports.slots import Slot
from tasks import publish
from tasks.actions import transitions
from tasks.actions.execute import carry_out
from tasks.outcomes import Outcome

_LOG = logging.getLogger("ggen.actions")
SERVES_S = 0.5
"""How long a process goes on taking actions before its message ends."""

Begun = Callable[[Action, Turn], None]
Ended = Callable[[Action, Outcome, float], None]


def enqueue(ports: Ports, action: Action) -> None:
    """Have an action carried out; where Memory is away the reaper does it later."""
    limit_ms = rules.hard_limit_ms(action)
    waiting = Waiting(
        Slot.of(action),
        _pace_of(action),
        limit_ms,
        microseconds(action.accepted_at),
        action.dispatch_weight,
    )
    try:
        call = ports.dispatch.enqueue(waiting)
    except OutageError as error:
        _LOG.warning("action %s waits for the reaper: %s", action.action_id, error)
        return
    publish.call(limit_ms, call)


def _pace_of(action: Action) -> str:
    """The name by which it is known how long such actions take."""
    if action.execute_url:
        return f"{action.handler}@{(action.policy_digest or '')[:12]}"
    return action.handler


def call_for_unserved(ports: Ports) -> None:
    """Call a process for each list that waits and that nobody serves: its message was lost."""
    for limit_ms, call in ports.dispatch.unserved():
        publish.call(limit_ms, call)


def serve(ports: Ports, limit_ms: int, called_in: int, begun: Begun, ended: Ended) -> int:
    """Carry out actions of one hard limit in their turn; how many.

    Args:
        ports: everything it needs.
        limit_ms: the hard limit of each; the message's own is half a second more.
        called_in: the round in which it was called; a later one has its own processes.
        begun: called with each action before it is carried out.
        ended: called with its outcome, and the seconds that it took.

    Raises:
        OutageError: Memory or Documents do not answer; the reaper finds what was taken.
    """
    server = _Server(ports, limit_ms, called_in, begun, ended)
    try:
        while server.go_on():
            pass
    finally:
        server.give_back()
    server.leave()
    return server.served


@dataclass(slots=True)
class _Server:
    """One process's way through the lists of one hard limit."""

    ports: Ports
    limit_ms: int
    called_in: int
    begun: Begun
    ended: Ended
    served: int = 0
    _until_s: float | None = None
    _is_left: bool = False
    _last: tuple[str, float] | None = None
    _freed: Action | None = None

    def go_on(self) -> bool:
        """Carry out the action whose turn it is; False when none is, or the time is up."""
        clock, is_first = self.ports.clock, self._until_s is None
        if self._until_s is None:
            self._until_s = clock.monotonic_s() + SERVES_S
        claim = self.ports.processes.claim(clock.now())
        freed = self._freed
        turn = self.ports.dispatch.take(
            self.limit_ms,
            _name(claim),
            claim,
            called_in=self.called_in if is_first else None,
            ended=self._last,
            freed=(Slot.of(freed), transitions.counted(freed)) if freed else None,
        )
        self._freed = self._last = None
        if turn.slot is None:
            self._is_left = True
            return False
        publish.call(self.limit_ms, turn.call)
        self.served += 1
        self._serve(turn, turn.slot)
        return clock.monotonic_s() < self._until_s

    def give_back(self) -> None:
        """Give back the place of the last action, whatever came after it."""
        if self._freed:
            transitions.free_slot(self.ports, self._freed)

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
            return  # it was put back while somebody was at it, or it was cancelled
        began_s = self.ports.clock.monotonic_s()
        self.begun(found.action, turn)
        claim = self.ports.processes.claim(self.ports.clock.now())
        outcome = carry_out(self.ports, found, claim, self._keep)
        self.ended(found.action, outcome, self.ports.clock.monotonic_s() - began_s)
        if outcome.run_s > 0:
            self._last = _pace_of(found.action), outcome.run_s * 1000

    def _keep(self, _ports: Ports, ended: Action) -> None:
        """Its place goes back with the next question."""
        self._freed = ended


def _name(claim: ProcessClaim) -> str:
    return f"{claim.host}/{claim.namespace}/{claim.pid}"
