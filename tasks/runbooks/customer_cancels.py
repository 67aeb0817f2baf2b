"""Runbook 7, Customer Cancels: a governor is drained, proved, archived and ended.

Not served by this version: the door refuses ``entitlement.cancelled``.
"""

from governor.errors import InputError
from governor.tenancy import MarketplaceEvent
from tasks.manual import Manual

EVENT = "entitlement.cancelled"


def refusal(event: MarketplaceEvent) -> InputError:
    """Why a cancellation is not begun. Nothing was changed."""
    return InputError(
        "unsupported-event",
        f"{event.event_type} is not served by this version: it cannot drain a governor yet "
        "(Runbook 7); nothing changed",
    )


MANUAL = Manual(
    number=7,
    title="Customer Cancels",
    purpose="A cancelled customer's governor is drained, proved, archived and ended.",
    trigger="`POST /v1/webhooks/marketplace`, signed, with `entitlement.cancelled`",
    inputs=MarketplaceEvent,
    outputs=(),
    refusals=(("always, in this version", "422 `unsupported-event`"),),
    slis=(("cancelled to drained", "< 60 s"),),
    receipts=(),
)
