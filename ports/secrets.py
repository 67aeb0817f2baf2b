"""Secrets: what must be known and never shown."""

from collections.abc import Sequence
from typing import Protocol


class Secrets(Protocol):
    """Reloaded when they change, so that rotation needs no restart.

    Every method raises OutageError when the secret cannot be read or is malformed; the message
    names its place and contains no part of it.
    """

    def webhook_secrets(self) -> Sequence[str]:
        """The marketplace's secrets, newest first."""
        ...

    def policy_secrets(self) -> Sequence[str]:
        """The secrets of who may bring policies into force by HTTP, newest first."""
        ...

    def action_secrets(self, sku_id: str, plan_type: str) -> Sequence[str]:
        """What a plan's requests are signed with (``whsec_…``), newest first.

        Where no file says otherwise it is derived, one for each plan.
        """
        ...

    def tenant_key(self, account_id: str, generation: int = 1) -> str:
        """The key a tenant signs its signals with; derived, one for each of its governors."""
        ...

    def publish_tenant_key(self, account_id: str, generation: int = 1) -> None:
        """Hand the tenant's key over to where its owner reads it (D22)."""
        ...

    def withdraw_tenant_key(self, account_id: str) -> None:
        """Take it back from there; ``tenant_key`` still tells it. Nothing happens if it is not."""
        ...

    def api_token(self) -> str:
        """The bearer token of reads."""
        ...

    def monitoring_token(self) -> str:
        """The password that Cloud Monitoring's webhooks show the ingress."""
        ...

    def push_token(self) -> str:
        """What the signal pump shows the ingress."""
        ...
