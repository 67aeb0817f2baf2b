"""The policy registry: immutable documents in Objects, the version in force in Documents."""

from collections.abc import Callable, Iterator
from functools import lru_cache

from ggen_governor.handlers import registered
from governor import policy
from governor.errors import ConflictError, InputError, PolicyError
from governor.policy import Policy
from ledger import canonical
from ports import Ports
from ports.documents import Create, every


def publish(ports: Ports, document: bytes) -> tuple[Policy, str]:
    """Register a policy; the policy, and the version that is in force for its plan now.

    The first version of a plan comes into force at once; which one is after it, Runbook 2 decides.

    Raises:
        InputError: not a valid policy, or it names an unknown handler; nothing was stored.
        ConflictError: this version is registered with other content; give it a new version.
    """
    canonical.loads(document)  # refuses what two readers could understand differently
    parsed = policy.parse(document, registered())
    ports.objects.create(_object(parsed.sku_id, parsed.plan_type, parsed.policy_version), document)
    pointer = Create(
        _pointer(parsed.sku_id, parsed.plan_type), {"policy_version": parsed.policy_version}
    )
    try:
        ports.documents.commit([pointer])
    except ConflictError:
        found = ports.documents.get(pointer.path)
        return parsed, found.data["policy_version"] if found else parsed.policy_version
    return parsed, parsed.policy_version


def in_force(ports: Ports, sku_id: str, plan_type: str) -> Policy:
    """The policy a new entitlement gets.

    Raises:
        InputError: no policy is registered for this SKU and plan.
        PolicyError: one is, and this process cannot use it.
    """
    pointer = ports.documents.get(_pointer(sku_id, plan_type))
    if pointer is None:
        raise InputError(
            "no-policy", f"no policy is registered for SKU {sku_id!r} with plan {plan_type!r}"
        )
    return load(ports, sku_id, plan_type, pointer.data["policy_version"])


def load(ports: Ports, sku_id: str, plan_type: str, version: str) -> Policy:
    """One version of a policy; versions never change, so they are kept in this process.

    Raises:
        PolicyError: not registered, or it names a handler this process does not have.
    """
    return _load(ports.objects.get, sku_id, plan_type, version)


def unusable(ports: Ports) -> Iterator[tuple[str, str, PolicyError | None]]:
    """Each SKU and plan with a policy in force, and why this process cannot use it, if so."""
    for pointer in every(ports.documents, "policies"):
        sku_id, _, plan_type = pointer.path.partition("/")[2].partition("~")
        try:
            load(ports, sku_id, plan_type, str(pointer.data.get("policy_version")))
        except PolicyError as error:
            yield sku_id, plan_type, error
        else:
            yield sku_id, plan_type, None


def forget_loaded() -> None:
    """Clear the cache, so that policies are read and checked again."""
    _load.cache_clear()


@lru_cache(maxsize=4096)
def _load(get: Callable[[str], bytes | None], sku_id: str, plan_type: str, version: str) -> Policy:
    document = get(_object(sku_id, plan_type, version))
    name = f"policy {sku_id}/{plan_type} {version}"
    if document is None:
        raise PolicyError("policy-unusable", f"{name} is in force and not registered", 30)
    try:
        return policy.parse(document, registered())
    except InputError as error:
        raise PolicyError("policy-unusable", f"{name}: {error.detail}", 30) from error


def _object(sku_id: str, plan_type: str, version: str) -> str:
    return f"policies/{sku_id}/{plan_type}/{version}.json"


def _pointer(sku_id: str, plan_type: str) -> str:
    return f"policies/{sku_id}~{plan_type}"
