"""A version that is watched: since when, for how long, and what was counted when it came.

The pointer of a plan holds one for the version in force, and one for a version that some governors
try first (``canary``).
"""

import hashlib
from collections.abc import Mapping, Sequence
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


_COUNTS = ("complete", "timed_out", "failed", "rollback_failed")


class Watch(Record):
    """A version on trial."""

    version: SemVer
    digest: str
    previous_version: SemVer
    run_id: str
    flipped_at: Timestamp
    until: Timestamp
    state: State = Field(description="`spreading`: canaries are well, and all follow")
    before: dict[str, int] = Field(description="how those of the last good version had ended")
    accounts: list[AccountId] = Field(default=[], description="who tries it first, by name")
    percent: int | None = Field(default=None, description="who tries it first, by hash")

    @property
    def known(self) -> Outcomes:
        """How actions under the version that was good had ended when this one came."""
        complete, timed_out, failed, rollback_failed = map(self.before.__getitem__, _COUNTS)
        return Outcomes(complete, timed_out, failed, rollback_failed)


def begin(
    ports: Ports,
    target: Target,
    policy: Policy,
    good_digest: str,
    *,
    is_known_good: bool = False,
    accounts: Sequence[str] = (),
    percent: int | None = None,
) -> Watch:
    """The watch over a version that comes into force now."""
    now, good = ports.clock.now(), ports.slots.outcomes(good_digest)
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
        before={name: getattr(good, name) for name in _COUNTS},
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
    """The versions of a plan that completed their bake.

    One that is in force without any watch counts: the first of a plan, or an earlier release's.
    """
    return list(pointer.get("baked", [str(pointer["policy_version"])]))


def newest_good(pointer: Mapping[str, Any], *, but: str = "") -> str | None:
    """The newest version that completed its bake and was not left; ``but`` is none of them."""
    left = {but, *pointer.get("returned", [])}
    good = (version for version in baked(pointer) if version not in left)
    return max(good, key=number_of, default=None)
