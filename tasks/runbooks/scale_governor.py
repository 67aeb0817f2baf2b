"""Runbook 3, Scale Governor: a governor whose signals wait gets more concurrency, within its quota.

Not served by this version: the concurrency of a governor is its plan's.
"""

from typing import Annotated

from pydantic import BaseModel, Field

from governor.errors import InputError
from governor.records import AccountId
from tasks.manual import Manual


class Scaling(BaseModel):
    """What the runbook is started with."""

    account_id: Annotated[AccountId, Field(description="whose governor")]
    new_concurrency: Annotated[int, Field(ge=1, description="how many actions at once")]


def refusal(wanted: Scaling) -> InputError:
    """Why a governor is not scaled. Nothing was changed."""
    return InputError(
        "scaling-not-served",
        f"the governor of {wanted.account_id} keeps its plan's concurrency: this version of ggen "
        "governor does not scale (Runbook 3)",
    )


MANUAL = Manual(
    number=3,
    title="Scale Governor",
    purpose="A governor whose signals wait gets more concurrency, as far as its quota allows.",
    trigger="more than 10 signals of a governor wait",
    inputs=Scaling,
    outputs=(),
    refusals=(("always, in this version", "`scaling-not-served`; the plan's limit stays"),),
    slis=(("decision to applied", "< 100 ms"), ("lag reduced", "< 5 min")),
    receipts=(),
)
