"""Each process hears which versions are in force, makes sure that it can use them, and says so.

A worker's parent answers for its children: they are forked from it, with the handlers it has
loaded, and load a version from the same registry. A thread in each child would cost a connection
and a stack for each, for the same answer.
"""

import logging
import threading
from collections.abc import Sequence

from governor.errors import GovernorError, OutageError, PolicyError
from governor.times import timestamp
from ports import Ports
from ports.broadcasts import Answer, Hearing, InForce, Listening
from tasks.governors import policies
from tasks.governors.broadcast import STALE_AFTER_S
from tasks.receipts import troubles

_LOG = logging.getLogger("ggen.policies")
CONFIRM_EVERY_S = 10.0


class Listener:
    """What one process knows of the versions in force."""

    def __init__(self, ports: Ports, role: str, hearing: Hearing, children: int = 0) -> None:
        self._ports, self._role, self._hearing = ports, role, hearing
        self._children = children
        self._claim = ports.processes.claim(ports.clock.now())
        self._answers: dict[str, Answer] = {}
        self._confirmed_s: float | None = None
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="policies", daemon=True)

    def start(self) -> None:
        """Listen in a thread of its own until ``stop``."""
        self._thread.start()

    def stop(self) -> None:
        """Say no more; the process is forgotten."""
        self._is_ended.set()
        try:
            self._ports.broadcasts.forget_listening(self._told(None).name)
        except OutageError as error:
            _LOG.warning("this process is still listed as one that listens: %s", error)

    def refuse_if_stale(self) -> None:
        """Refuse to act under versions that may not be in force any more.

        Raises:
            OutageError: ``policy-stale``: nothing confirmed them for a minute.
        """
        if self._confirmed_s is None:
            return  # no check of this release has run yet; without any there is no lease either
        age_s = self._ports.clock.monotonic_s() - self._confirmed_s
        if age_s > STALE_AFTER_S:
            detail = (
                f"for {age_s:.0f} s this process could not confirm which policies are in force; "
                "nothing was accepted. Send it again: another process may answer"
            )
            raise OutageError("policy-stale", detail, 5)

    def confirm(self) -> None:
        """Learn the versions in force, and answer.

        Raises:
            OutageError: Memory does not answer.
        """
        known, age_s = self._ports.broadcasts.in_force()
        self._answers = {each.plan: self._answer(each) for each in known}
        self._ports.broadcasts.answer(self._told(age_s))
        if age_s is not None:
            asked_s = self._ports.clock.monotonic_s() - age_s
            self._confirmed_s = max(self._confirmed_s or 0.0, asked_s)

    def _listen(self) -> None:
        while not self._is_ended.is_set():
            try:
                for _ in self._hearing.hear(CONFIRM_EVERY_S):
                    if self._is_ended.is_set():
                        return
                    self.confirm()
            except OutageError as error:
                _LOG.warning("policies are not heard of: %s", error)
            except Exception:  # whatever it is: without this thread the process would go stale
                _LOG.exception("a fault while listening for policies")
            self._is_ended.wait(0.5)

    def _told(self, age_s: float | None) -> Listening:
        answers: Sequence[Answer] = [*self._answers.values()]
        return Listening(self._role, self._claim, tuple(answers), age_s, children=self._children)

    def _answer(self, announced: InForce) -> Answer:
        sku_id, _, plan_type = announced.plan.partition("~")
        code = detail = ""
        try:
            digest = policies.load_named(self._ports, sku_id, plan_type, announced.version).digest
            if digest != announced.digest:
                code, detail = (
                    "another-content",
                    f"the registry has {digest}, not {announced.digest}",
                )
        except GovernorError as error:
            code, detail = error.code, error.detail[:512]
            if isinstance(error, PolicyError):
                # Noted only: a worker's parent must not use gRPC, or its children could not.
                name = f"policy-unusable/{sku_id}/{plan_type}"
                seconds = 3 * troubles.LOOK_EVERY_S
                self._ports.troubles.note_trouble(name, detail, blocks=True, seconds=seconds)
        known = self._answers.get(announced.plan)
        if known and (known.digest, known.code) == (announced.digest, code):
            return known
        if code:
            _LOG.error(
                "policy %s %s cannot be used here: %s", announced.plan, announced.version, detail
            )
        else:
            _LOG.info("policy %s %s is known here", announced.plan, announced.version)
        at = timestamp(self._ports.clock.now())
        return Answer(
            announced.plan,
            announced.version,
            announced.digest,
            "nack" if code else "ack",
            at,
            code,
            detail,
        )
