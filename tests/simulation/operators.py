"""An operator in a world: limits are changed and a policy is upgraded, beside every fault."""

import json
import random
from collections.abc import Callable
from typing import Any

from governor.errors import GovernorError
from governor.runs import Run
from ports import Ports
from tasks.governors import policies
from tasks.runbooks import scale_governor, upgrade_policy
from tasks.runbooks.scale.changes import Scaling
from tasks.runbooks.upgrade import comparison
from tasks.runbooks.upgrade.comparison import PolicyUpgrade
from tests.simulation.world import World

Ask = Callable[[Callable[[Ports], Any]], Any]
_EXPECTED = ("no-policy", "older", "superseded", "not-active")


class Operator:
    """Asks for changes at moments of chance. Its runs end before a world is quiet."""

    def __init__(self, world: World, ask: Ask, policy: dict[str, Any]) -> None:
        self._world, self._ask, self._policy = world, ask, policy
        self._rng = random.Random(world.seed)

    def work(self, accounts: Callable[[], list[str]], object_to: Callable[[str], None]) -> None:
        """Some changes; ``object_to`` hears of an answer that is none of those expected."""
        is_upgraded = False
        for number in range(self._rng.randint(1, 4)):
            self._world.sleep(self._rng.uniform(0.3, 5))
            asked = accounts()
            if self._rng.random() < 0.4 and not is_upgraded:
                is_upgraded = True
                self._tell(self._upgrade(), "upgrade", object_to)
            elif asked:
                self._tell(self._scale(self._rng.choice(asked), number), "scale", object_to)

    def _tell(self, told: Any, what: str, object_to: Callable[[str], None]) -> None:
        self._world.tell(f"operator: {what}: {told.run_id if isinstance(told, Run) else told}")
        if isinstance(told, GovernorError) and told.code not in _EXPECTED:
            object_to(f"an operator's {what} was refused: {told!r}")

    def _scale(self, account: str, number: int) -> Any:
        asked = Scaling(
            account_id=account,
            entitlement_id="sim-sku",
            new_concurrency=self._rng.choice((1, 2, 3)),
            operator="operator",
        )
        return self._ask(lambda ports: scale_governor.ask(ports, asked, f"scale-{number}"))

    def _upgrade(self) -> Any:
        """More is allowed at once and in a month; the version may be left again by itself."""
        quota = {**self._policy["quota"], "concurrent_actions": 3, "monthly_actions": 2000}
        bake = {"seconds": 10, "min_actions": 3}
        new = {**self._policy, "policy_version": "1.1.0", "quota": quota, "bake": bake}

        def ask(ports: Ports) -> Run | None:
            comparison.register(ports, json.dumps(new).encode())
            asked = PolicyUpgrade(
                sku_id=str(new["sku_id"]),
                plan_type=str(new["plan_type"]),
                policy_version="1.1.0",
            )
            return upgrade_policy.ask(ports, asked)

        return self._ask(ask)


def faults_of(ports: Ports, memory: dict[str, str], account: str) -> str:
    """What is wrong with a governor once all is quiet: it goes by the version and limit it has."""
    entitlement = ports.documents.get(f"tenants/{account}/entitlements/sim-sku")
    pointer = policies.pointer_of(ports, "sim-sku", "starter")
    if entitlement is None or pointer is None:
        return f"{account}: no entitlement, or no policy"
    held, version = entitlement.data, pointer.data["policy_version"]
    if held["policy_version"] != version and not held.get("refused_policy"):
        return f"{account} is on {held['policy_version']}, and {version} is in force"
    told = memory.get("sim-sku:version"), memory.get("sim-sku:concurrent")
    if told != (held["policy_version"], str(held["concurrent_actions"])):
        return f"{account}: Memory goes by {told}, Documents by {held['concurrent_actions']}"
    return ""
