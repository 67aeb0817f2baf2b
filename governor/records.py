"""What every stored document has in common, and the types of its fields.

Frozen values; ``model_dump(mode="json")`` is what a Documents port stores. Where each lies is in
``paths``; tenants and what they bought in ``tenancy``; runs in ``runs``; actions in ``actions``.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from governor.errors import UnreadableError
from governor.paths import entitlement_path

SYSTEM_ACCOUNT = "_system"
"""The ledger of the platform itself; no tenant can have this name (D1)."""

AccountId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")]
LedgerId = Annotated[str, StringConstraints(pattern=r"^(_system|[A-Za-z0-9][A-Za-z0-9_-]{0,127})$")]
SkuId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
EntitlementId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
PlanType = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Region = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
SignalType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
EventId = Annotated[str, StringConstraints(pattern=r"^[\x20-\x7e]{1,256}$")]
NO_TIME = datetime(9999, 1, 1, tzinfo=UTC)
"""The creation time of a document whose row holds none: the row was corrupted."""

_NUMBER = "(0|[1-9][0-9]{0,5})"
SemVer = Annotated[str, StringConstraints(pattern=rf"^{_NUMBER}\.{_NUMBER}\.{_NUMBER}$")]
_DATE, _TIME = "[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}"


def _is_an_instant(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Timestamp = Annotated[
    str, StringConstraints(pattern=rf"^{_DATE}T{_TIME}Z$"), AfterValidator(_is_an_instant)
]


class Record(BaseModel):
    """A stored document; unknown fields of a newer version are left unread."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def document(self) -> dict[str, Any]:
        """The JSON object that is stored."""
        return self.model_dump(mode="json")

    @classmethod
    def stored(cls, data: Mapping[str, Any]) -> Self:
        """What a store gave back of one.

        Raises:
            UnreadableError: it cannot be parsed as one: a store fault, or a manual edit.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            fault = error.errors(include_url=False, include_input=False)[0]
            raise UnreadableError(
                "document-unreadable",
                f"the store gave back what is no {cls.__name__.lower()}: "
                f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}",
                5,
                "DATA_LOSS",
            ) from None

    def evolve(self, **changes: object) -> Self:
        """A validated copy with some fields changed."""
        return self.model_validate({**self.__dict__, **changes})


class OfEntitlement(Record):
    """A record of one entitlement; where it names none, as in release 0.1.0, its SKU is its id."""

    account_id: AccountId
    entitlement_id: EntitlementId = Field(description="the marketplace's; else the `sku_id`")
    sku_id: SkuId = Field(description="the product")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, stored: Any) -> Any:
        if isinstance(stored, Mapping) and not stored.get("entitlement_id"):
            return {**stored, "entitlement_id": stored.get("sku_id")}
        return stored

    @property
    def entitlement_path(self) -> str:
        """Where that entitlement's document lies."""
        return entitlement_path(self.account_id, self.entitlement_id)


class ProcessClaim(Record):
    """Who acts: enough to tell whether that very process still lives."""

    host: str
    boot_id: str = ""
    namespace: str = Field(default="", description="of process ids; two containers have two")
    pid: int
    process_started: float = Field(description="seconds from the boot, as the kernel counts them")
    claimed_at: Timestamp
    limit_s: float = Field(default=30, description="how long it may act before it is killed")
