"""What the receipt contracts share: field types and what every receipt states (D12)."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from governor.records import AccountId, Timestamp

Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ReceiptId = Annotated[
    str,
    StringConstraints(
        pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
    ),
]
LedgerAccount = AccountId | Literal["_system"]
Word = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Code = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""A word for machines: what a handler or a store says in free text never is one (D30)."""

Address = Annotated[str, StringConstraints(pattern=r"^(gs|file)://[ -~]{1,1016}$")]
"""Where an archive lies."""

Detail = Annotated[str, StringConstraints(max_length=1024)]
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Usd = Annotated[float, Field(allow_inf_nan=False)]


class Strict(BaseModel):
    """A frozen value whose fields are all known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Receipt(Strict):
    """What every receipt states (D12)."""

    receipt_id: ReceiptId
    timestamp: Timestamp = Field(description="when the operation ended, by the worker's clock")
    operation: str
    account_id: LedgerAccount
    status: Word
    duration_ms: Count
    drill: bool | None = Field(default=None, description="true when made by a drill")
    spooled: bool | None = Field(
        default=None, description="true when the store was away, so that it was recorded later"
    )


class Second(Strict):
    """The second version of a contract. A receipt that names no version is of the first.

    From the second version on, receipts hold codes, ids and digests (D30). The text that
    ``error_sha256`` or ``detail_sha256`` names is ``tenants/{account_id}/texts/{receipt_id}``.
    """

    contract_version: Literal[2] = Field(default=2, description="absent: 1")


class Third(Strict):
    """The third version of a contract."""

    contract_version: Literal[3] = 3


class Resources(Strict):
    """What provisioning made."""

    fsm_id: Word
    pubsub_topic: Word
    firestore_path: Word


class QuotaTerms(Strict):
    """The quota an entitlement starts with."""

    monthly_actions: Count
    concurrent_actions: Count


class Concurrency(Strict):
    """A change of the limit of actions in flight."""

    previous: Count
    new: Count


class OfRun(Receipt):
    """A receipt that ends a run, and names the event that began it."""

    run_id: Word
    event_id: Word
    body_sha256: Sha256Hex
