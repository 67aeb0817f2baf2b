"""Whose key signed a signal: each governor of an account has a key of its own.

The key is derived, so that checking it asks no store. Which governor is the present one, admission
knows; this process remembers what it learned last, and asks the store where a signature does not
fit, once a second for an account at most.
"""

from collections import OrderedDict
from collections.abc import Mapping

from fastapi.concurrency import run_in_threadpool

from governor import paths
from governor.errors import InputError, OutageError
from governor.tenancy import Tenant
from ingress import signature
from ports import Ports

_ASK_EVERY_S = 1.0
_REMEMBERED = 10_000


class TenantKeys:
    """The generation of each account's governor, as far as this process knows."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    async def check(self, account_id: str, headers: Mapping[str, str], body: bytes) -> int:
        """The generation of the key that signed a body; admission refuses all but the present one.

        Raises:
            InputError: ``missing-signature`` or ``bad-signature``.
            OutageError: the tenant's key cannot be read.
        """
        generation, asked_s = self._known.get(account_id, (1, float("-inf")))
        try:
            self._check(account_id, generation, headers, body)
        except InputError as error:
            now_s = self._ports.clock.monotonic_s()
            if error.code != "bad-signature" or now_s - asked_s < _ASK_EVERY_S:
                raise
            present = await self._ask(account_id, generation, now_s)
            if present == generation:
                raise
            self._check(account_id, present, headers, body)
            return present
        return generation

    def _check(
        self, account_id: str, generation: int, headers: Mapping[str, str], body: bytes
    ) -> None:
        # A file's status and a hash: cheaper than a thread, which a flood would keep from others.
        key = self._ports.secrets.tenant_key(account_id, generation)
        signature.check_signal(headers, body, key)

    async def _ask(self, account_id: str, known: int, now_s: float) -> int:
        path = paths.tenant_path(account_id)
        try:
            found = await run_in_threadpool(self._ports.documents.get, path)
            present = Tenant.stored(found.data).generation if found else 1
        except OutageError:
            present = known  # nothing is admitted anyway while the store is away
        self._known[account_id] = present, now_s
        self._known.move_to_end(account_id)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return present
