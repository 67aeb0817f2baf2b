"""Runbook 2, Upgrade Policy: a new version of a policy comes into force in every governor.

Not served by this version: a plan keeps the first version that was registered for it.
"""

from typing import Annotated

from pydantic import BaseModel, Field

from governor.errors import InputError
from tasks.manual import Manual


class PolicyUpgrade(BaseModel):
    """What the runbook is started with."""

    sku_id: Annotated[str, Field(description="whose policy")]
    plan_type: Annotated[str, Field(description="of which plan")]
    policy_version: Annotated[str, Field(description="the version to bring into force")]
    force: Annotated[bool, Field(description="also where it is not compatible")] = False


def refusal(wanted: PolicyUpgrade) -> InputError:
    """Why an upgrade is not begun. Nothing was changed."""
    return InputError(
        "upgrade-not-served",
        f"policy {wanted.sku_id}/{wanted.plan_type} {wanted.policy_version} does not come into "
        "force: this version of ggen governor cannot upgrade a policy in force (Runbook 2)",
    )


MANUAL = Manual(
    number=2,
    title="Upgrade Policy",
    purpose="A new version of a policy comes into force in every governor of its plan, hot.",
    trigger="a newer version of a policy is registered, or an operator asks for one",
    inputs=PolicyUpgrade,
    outputs=(),
    refusals=(("always, in this version", "`upgrade-not-served`; the version in force stays"),),
    slis=(("broadcast to all governors", "< 500 ms"), ("compatibility check", "< 100 ms")),
    receipts=(),
)
