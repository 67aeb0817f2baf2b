"""Policies in the registry's bucket under ``incoming/``, of which the bucket sends notifications.

No caller waits for the answer there: a policy that is refused raises an alert.
"""

import logging

from governor.compatibility import number_of
from governor.errors import ConflictError, InputError
from governor.policy import MAX_POLICY_BYTES
from governor.records import SYSTEM_ACCOUNT
from ports import Ports
from tasks.governors import policies
from tasks.receipts.commit import alert, commit_and_send
from tasks.runbooks import upgrade_policy
from tasks.runbooks.upgrade import comparison
from tasks.runbooks.upgrade.comparison import PolicyUpgrade

_LOG = logging.getLogger("ggen.policies")
FOLDER = "incoming/"
_MAX_SIGNATURE_BYTES = 16 * 1024


def take(ports: Ports, name: str, generation: str) -> None:
    """Bring a policy into force that lies in the bucket as ``incoming/….json``.

    Its signature may lie beside it as ``….json.sig``, and has to be there first. Repeating is safe.

    Raises:
        OutageError: a store does not answer; to be repeated.
    """
    if not name.startswith(FOLDER) or not name.endswith(".json"):
        return  # a signature, or an object of ours
    try:
        document = ports.objects.get(name, MAX_POLICY_BYTES + 1)
        if document is None:
            _LOG.warning("%s was gone before it could be read", name)
            return
        signature = ports.objects.get(f"{name}.sig", _MAX_SIGNATURE_BYTES) or b""
        _bring(ports, document, signature.decode(errors="replace"))
    except (InputError, ConflictError) as error:
        _tell(ports, name, generation, error)


def _bring(ports: Ports, document: bytes, signature: str) -> None:
    new = comparison.register(ports, document, signature).policy
    present = policies.in_force(ports, new.sku_id, new.plan_type).policy_version
    if number_of(new.policy_version) < number_of(present):
        detail = f"{present} is in force, which is newer than {new.policy_version}"
        raise ConflictError("superseded", detail)
    upgrade_policy.ask(
        ports,
        PolicyUpgrade(
            sku_id=new.sku_id,
            plan_type=new.plan_type,
            policy_version=new.policy_version,
            is_unattended=True,
        ),
    )


def _tell(ports: Ports, name: str, generation: str, error: InputError | ConflictError) -> None:
    raised, told = alert(
        ports,
        "warning",
        "policy_refused",
        SYSTEM_ACCOUNT,
        f"{name}/{generation}",
        f"the policy in {name} was refused: {error.code}: {error.detail}",
    )
    commit_and_send(ports, told, *raised)
