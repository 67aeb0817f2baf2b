"""The way back: the content of an earlier version, as a new version above every one in use."""

from governor.compatibility import number_of
from governor.errors import InputError
from governor.policy import Policy
from ports import Ports
from tasks.governors import policies
from tasks.runbooks.upgrade import watches


def register(ports: Ports, sku_id: str, plan_type: str, to: str) -> Policy:
    """Put the way back to ``to`` into the registry, or find the one that waits there already.

    Raises:
        InputError: there is no such version, or no policy of this plan.
    """
    pointer = policies.pointer_of(ports, sku_id, plan_type)
    if pointer is None:
        raise InputError("no-policy", f"no version of {sku_id}/{plan_type} is in force")
    canary = watches.of(pointer, "canary")
    held = [str(pointer.data["policy_version"]), *([canary.version] if canary else [])]
    above = max(map(number_of, held))
    known = policies.versions(ports, sku_id, plan_type)
    for version in known:
        if number_of(version) > above:
            waiting = policies.read(ports, sku_id, plan_type, version)
            if waiting.rolls_back == to:
                return waiting
    patch = max(each[2] for each in map(number_of, known) if each[:2] == above[:2])
    text = policies.text_of(ports, sku_id, plan_type, to)
    version = f"{above[0]}.{above[1]}.{patch + 1}"
    return policies.register_way_back(ports, policies.rolling_back(text, version)).policy
