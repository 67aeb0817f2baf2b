"""Objects on Cloud Storage: created only where there is nothing, checked by CRC32C both ways.

A create may land although its reply is lost. The retry gets ``412`` and compares the content. How
long an object must be kept is the bucket's own affair (docs/google-cloud.md): retention is never
set or locked from here.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from google.api_core import exceptions as answers
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from adapters.gcp.calls import PerProcess, Service, outage
from adapters.rules import check_name
from governor.errors import ConflictError, OutageError, RetainedError
from governor.times import timestamp

_WHO = Service("Cloud Storage", "objects-unavailable")
_READ = {"timeout": (3, 5), "retry": DEFAULT_RETRY.with_timeout(5)}
"""At most 13 s in all: the tries, and one more that begins at their end."""

_WRITE = {"timeout": (3, 20), "retry": DEFAULT_RETRY.with_timeout(10)}
"""At most 33 s in all, up to 8 MiB; more than that is sent in parts, each bounded like this."""

_WRITE_SMALL = {"timeout": (0.4, 0.5), "retry": DEFAULT_RETRY.with_timeout(1.0)}
"""Repeated at least once, since a try ends before the repetitions do. At most 1.9 s in all, up to
``_SMALL`` bytes: the spool is on the path of an action (D9)."""

_SMALL = 64 * 1024

_SPOILT = (DataCorruption, InvalidResponse)
T = TypeVar("T")


class GcsObjects:
    """See ``ports.objects.Objects`` for what it promises."""

    def __init__(self, bucket: str, *, emulator_url: str = "") -> None:
        def open_client() -> Client:
            if emulator_url:
                return Client(
                    project="emulator",
                    credentials=AnonymousCredentials(),
                    client_options={"api_endpoint": emulator_url},
                )
            return Client(project=None)  # none is needed: a bucket's name is its address

        self._bucket = bucket
        self._client = PerProcess(open_client)

    def create(self, name: str, content: bytes) -> bool:
        blob = self._blob(check_name(name))
        try:
            _asked(
                lambda: blob.upload_from_string(
                    content,
                    "application/octet-stream",
                    if_generation_match=0,
                    checksum="crc32c",
                    **(_WRITE_SMALL if len(content) <= _SMALL else _WRITE),
                )
            )
        except answers.PreconditionFailed:
            self._same_or_conflict(name, content)
            return False
        except answers.NotFound as error:
            raise outage(_WHO, error) from error  # there is no such bucket
        return True

    def get(self, name: str, most: int | None = None) -> bytes | None:
        blob = self._blob(check_name(name))
        part = {"checksum": "crc32c"} if most is None else {"end": most - 1, "checksum": None}
        try:
            found: bytes = _asked(lambda: blob.download_as_bytes(**part, **_READ))
            return found
        except answers.RequestRangeNotSatisfiable:
            return b""
        except answers.NotFound as error:
            _check_bucket(error)
            return None

    def names(self, prefix: str) -> Iterator[str]:
        def listing() -> list[str]:
            found = self._client.get().list_blobs(
                self._bucket, prefix=prefix, fields="items(name),nextPageToken", **_READ
            )
            return [blob.name for blob in found]

        try:
            yield from _asked(listing)
        except answers.NotFound as error:
            raise outage(_WHO, error) from error

    def address(self, name: str) -> str:
        return f"gs://{self._bucket}/{check_name(name)}"

    def delete(self, name: str) -> None:
        blob = self._blob(check_name(name))
        try:
            _asked(lambda: blob.delete(**_READ))
        except answers.NotFound as error:
            _check_bucket(error)
        except OutageError as error:
            if not _is_retained(error.__cause__):
                raise
            _asked(lambda: blob.reload(**_READ))
            until = blob.retention_expiration_time
            detail = f"{name} is protected by its bucket's retention; it was kept"
            named = timestamp(until) if until else None
            raise RetainedError("retained", detail, until=named) from error

    def _blob(self, name: str) -> Any:
        return self._client.get().bucket(self._bucket).blob(name)

    def _same_or_conflict(self, name: str, content: bytes) -> None:
        there = self.get(name)
        if there is None:
            raise OutageError(_WHO.code, f"{name} was there and is gone; repeat", retry_after_s=1)
        if there != content:
            digest = hashlib.sha256(there).hexdigest()[:12]
            raise ConflictError(
                "object-exists",
                f"{name} exists with other content (SHA-256 {digest}…) and was kept as it is; "
                "what changed needs a new version",
            )


def _asked(call: Callable[[], T]) -> T:
    """The answer of a call that is bounded itself.

    Raises:
        NotFound, PreconditionFailed: the answer.
        OutageError: anything else; a write MAY HAVE LANDED.
    """
    try:
        return call()
    except (answers.NotFound, answers.PreconditionFailed, answers.RequestRangeNotSatisfiable):
        raise
    except (answers.GoogleAPIError, GoogleAuthError, OSError, *_SPOILT) as error:
        raise outage(_WHO, error) from error


def _check_bucket(error: answers.NotFound) -> None:
    """A bucket that is not there is no object that is not there."""
    if "bucket does not exist" in str(error.message):
        raise outage(_WHO, error) from error


def _is_retained(answer: BaseException | None) -> bool:
    """Whether a deletion was refused for a retention (403 ``retentionPolicyNotMet``)."""
    return isinstance(answer, answers.Forbidden) and "retention" in str(answer.message).lower()
