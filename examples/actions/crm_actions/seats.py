"""Seats: added by a handler, taken away by its rollback."""

import httpx
from pydantic import BaseModel, Field

from ggen_governor import ActionContext, RecoverableError, RejectedError, UnrecoverableError, action


class Seats(BaseModel):
    """The payload of a signal."""

    number: int = Field(ge=1, le=1000)
    crm: str = Field(default="http://127.0.0.1:8090", description="where the CRM answers")


@action("crm.add_seats", payload=Seats)
def add(context: ActionContext, asked: Seats) -> dict[str, int]:
    """Add seats under the action's id, which the rollback knows too."""
    answer = httpx.put(
        f"{asked.crm}/seats/{context.action_id}",
        json={"number": asked.number},
        timeout=context.remaining_s(),
    )
    if answer.status_code == 422:
        raise RejectedError("CRM_SAYS_NO", "the CRM has no such seats")
    if answer.status_code == 410:
        raise UnrecoverableError("CRM_GONE", "the CRM says that these seats were taken away")
    if answer.is_error:
        raise RecoverableError("CRM_REFUSED", f"the CRM answered {answer.status_code}")
    return {"added": asked.number}


@add.rollback
def remove(context: ActionContext, asked: Seats) -> None:
    """Take the seats away, whether they were added, are still to come, or never came."""
    url = f"{asked.crm}/seats/{context.action_id}"
    httpx.delete(url, timeout=context.remaining_s()).raise_for_status()
