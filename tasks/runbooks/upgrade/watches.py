"""A version that is watched: since when, for how long, and what was counted when it came.

The pointer of a plan holds one for the version in force, and one for a version that some governors
try first (``canary``).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from governor.bake import Outcomes
from governor.compatibility import number_of
from governor.policy import Policy
from governor.records import AccountId, Record, SemVer, Timestamp
from governor.times import instant, timestamp
from ports import Ports
from ports.documents import Document
from tasks.governors.moves import Target

Wave = Literal["all", "canary"]
MEMBERS: Mapping[Wave, str] = {"all": "bake", "canary": "canary"}
"""Wave -> the member of the pointer that holds its watch."""


State = Literal["watching", "spreading", "passed", "inconclusive", "returning", "returned", "stuck"]


class Watch(Record):
    """A version on trial."""

    version: SemVer
    digest: str
    previous_version: SemVer
    run_id: str
    flipped_at: Timestamp
    until: Timestamp
    state: State = Field(description="`spreading`: canaries are well, and all follow")
    since: dict[str, int] = Field(description="how its actions had ended when it came")
    before: dict[str, int] = Field(description="how those of the version before had ended")
    accounts: list[AccountId] = Field(default=[], description="who tries it first, by name")
    percent: int | None = Field(default=None, description="who tries it first, by hash")

    def new(self, now: Outcomes) -> Outcomes:
        """What came since."""
        return now.since(Outcomes(**self.since))


def begin(
    ports: Ports,
    target: Target,
    policy: Policy,
    previous_digest: str,
    *,
    is_known_good: bool = False,
    accounts: Sequence[str] = (),
    percent: int | None = None,
) -> Watch:
    """The watch over a version that comes into force now."""
    now = ports.clock.now()
    is_trial = bool(accounts) or percent is not None
    unwatched: State = "spreading" if is_trial else "passed"
    return Watch(
        version=target.version,
        digest=target.digest,
        previous_version=target.previous_version,
        run_id=target.run_id,
        flipped_at=timestamp(now),
        until=timestamp(now + timedelta(seconds=policy.bake.seconds)),
        state=unwatched if is_known_good or not policy.bake.seconds else "watching",
        since=asdict(ports.slots.outcomes(target.digest)),
        before=asdict(ports.slots.outcomes(previous_digest)),
        accounts=list(accounts),
        percent=percent,
    )


def of(pointer: Document | None, wave: Wave) -> Watch | None:
    """The watch that a plan's pointer holds."""
    found = pointer.data.get(MEMBERS[wave]) if pointer else None
    return Watch.stored(found) if found else None


def is_over(watch: Watch, ports: Ports) -> bool:
    """Whether the version was watched for as long as it has to be."""
    return ports.clock.now() >= instant(watch.until)


def is_member(account_id: str, sku_id: str, accounts: Sequence[str], percent: int | None) -> bool:
    """Whether an account's governors try a version first: by name, or by a hash of it."""
    if account_id in accounts:
        return True
    digest = hashlib.sha256(f"{sku_id}/{account_id}".encode()).digest()
    return percent is not None and int.from_bytes(digest[:4]) % 100 < percent


def baked(pointer: Mapping[str, Any]) -> list[str]:
    """The versions of a plan that completed their bake; the first one had none before it."""
    first = min([*pointer.get("was_in_force", []), str(pointer["policy_version"])], key=number_of)
    return list(pointer.get("baked", [first]))
