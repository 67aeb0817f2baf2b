"""Whose key signed a signal: the present generation's is accepted, and asking is bounded."""

import asyncio
import dataclasses

import pytest

from governor.errors import InputError, OutageError
from ingress.signature import sign
from ingress.tenant_keys import TenantKeys
from ports import Ports
from ports.documents import Create

BODY = b"{}"


def _check(keys: TenantKeys, ports: Ports, account_id: str, generation: int) -> int:
    signature = sign(BODY, ports.secrets.tenant_key(account_id, generation))
    return asyncio.run(keys.check(account_id, {"x-signature": signature}, BODY))


def _at_generation(ports: Ports, account_id: str, generation: int) -> None:
    stored = {
        "account_id": account_id,
        "generation": generation,
        "fsm_id": "x",
        "topic": "x",
        "state": "stable",
        "region": "r",
        "created_at": "2026-11-26T12:00:00.000000Z",
        "created_by": "r",
    }
    ports.documents.commit([Create(f"tenants/{account_id}", stored)])


@pytest.mark.parametrize("generation", [1, 2, 5, 6, 40])
def test_the_present_key_is_found_whichever_generation_it_is(ports: Ports, generation: int) -> None:
    _at_generation(ports, "acme", generation)
    keys = TenantKeys(ports)

    assert _check(keys, ports, "acme", generation) == generation
    assert _check(keys, ports, "acme", generation) == generation


def test_keys_of_different_generations_and_accounts_differ(ports: Ports) -> None:
    made = {ports.secrets.tenant_key(a, g) for a in ("acme", "beta") for g in (1, 2, 3)}

    assert len(made) == 6


def test_rubbish_is_refused_and_asks_once_a_second(ports: Ports) -> None:
    class Counted:
        asked = 0

        def __getattr__(self, name: str) -> object:
            Counted.asked += 1
            return getattr(ports.documents, name)

    keys = TenantKeys(dataclasses.replace(ports, documents=Counted()))  # type: ignore[arg-type]
    for _ in range(5):
        with pytest.raises(InputError, match="signature"):
            _check(keys, ports, "acme", 99)

    assert Counted.asked == 1


def test_a_store_that_does_not_answer_is_no_wrong_signature(ports: Ports) -> None:
    class Down:
        def get(self, _path: str) -> None:
            raise OutageError("documents-unavailable", "away")

    keys = TenantKeys(dataclasses.replace(ports, documents=Down()))  # type: ignore[arg-type]
    with pytest.raises(OutageError):
        _check(keys, ports, "acme", 40)
    assert _check(keys, ports, "acme", 1) == 1  # what needs no question is answered
