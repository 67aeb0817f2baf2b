"""Whose key signed a signal: each governor of an account has a key of its own.

Keys are derived, so that checking one asks no store. Which governor is the present one, admission
knows, and refuses the key of any other. This process remembers the generation that it saw last, and
tries a few later ones; only where none fits does it ask the store, one question at a time.
"""

from collections import OrderedDict
from collections.abc import Mapping

from anyio import CapacityLimiter, to_thread

from governor import paths
from governor.errors import InputError
from governor.tenancy import Tenant
from ingress import signature
from ports import Ports

_ASK_EVERY_S = 1.0
_REMEMBERED = 10_000
_LATER = 4
"""Generations past the known one that are tried: each costs a hash."""


class TenantKeys:
    """The generation of each account's governor, as far as this process knows."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._asking = CapacityLimiter(1)

    async def check(self, account_id: str, headers: Mapping[str, str], body: bytes) -> int:
        """The generation of the key that signed a body; admission refuses all but the present one.

        Raises:
            InputError: ``missing-signature`` or ``bad-signature``.
            OutageError: the key cannot be read, or the store was asked and does not answer.
        """
        generation, asked_s = self._known.get(account_id, (1, float("-inf")))
        for tried in range(generation, generation + 1 + _LATER):
            try:
                self._check(account_id, tried, headers, body)
            except InputError as error:
                if error.code != "bad-signature":
                    raise
                refused = error
            else:
                if tried != generation:
                    self._remember(account_id, tried, asked_s)
                return tried
        now_s = self._ports.clock.monotonic_s()
        if now_s - asked_s < _ASK_EVERY_S:
            raise refused
        present = await to_thread.run_sync(self._ask, account_id, limiter=self._asking)
        self._remember(account_id, present, now_s)
        if present in range(generation, generation + 1 + _LATER):
            raise refused
        self._check(account_id, present, headers, body)
        return present

    def _check(
        self, account_id: str, generation: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        # A file's status and a hash: cheaper than a thread, which a flood would keep from others.
        key = self._ports.secrets.tenant_key(account_id, generation)
        signature.check_signal(headers, body, key)

    def _ask(self, account_id: str) -> int:
        found = self._ports.documents.get(paths.tenant_path(account_id))
        return Tenant.stored(found.data).generation if found else 1

    def _remember(self, account_id: str, generation: int, asked_s: float) -> None:
        self._known[account_id] = generation, asked_s
        self._known.move_to_end(account_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
