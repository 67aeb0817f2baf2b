"""How Google is called: one channel per process, every call bounded, every failure one of ours.

The clients' own defaults block a caller for one to ten minutes when a server does not answer, and
their channels wait up to two minutes before they try a lost server again. Here each call
sets ``timeout`` and ``retry``. It is retried only where that is safe, within its own time limit.
"""

import os
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

import google.auth
import grpc
import tenacity
from google.api_core import exceptions as answers
from google.auth.exceptions import GoogleAuthError

from governor.errors import OutageError

T = TypeVar("T")


class Service(NamedTuple):
    """Who is called: its name for people, and the code of its outages."""

    name: str
    code: str


OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),  # the default of 120 s would outlast the outage
    ("grpc.min_reconnect_backoff_ms", 2_000),  # how long one attempt to connect may take
    ("grpc.keepalive_time_ms", 30_000),  # a connection that was dropped in silence is noticed
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", -1),
)

_LOOK_AGAIN_S = 5.0

SAFE_TO_REPEAT: tuple[type[Exception], ...] = (
    answers.Aborted,
    answers.ServiceUnavailable,
    answers.InternalServerError,
)
"""What a call that changes nothing, or the same thing again, is repeated after at once."""

NOT_DONE: tuple[type[Exception], ...] = (answers.Aborted,)
"""After this nothing was written, so that even a commit may be repeated at once."""

_ANSWERS = (
    answers.AlreadyExists,
    answers.FailedPrecondition,
    answers.InvalidArgument,
    answers.NotFound,
)


class PerProcess:
    """A client opened on first use. gRPC does not survive a fork, so each child opens its own."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._held: tuple[int, Any] | None = None
        self._failed: tuple[float, OutageError] | None = None

    def get(self) -> Any:
        """This process's own.

        Raises:
            OutageError: it cannot be opened: there are no credentials, or they cannot be read. To
                look for them may take seconds, so they are not looked for again at once.
        """
        held = self._held
        if held is None or held[0] != os.getpid():
            if self._failed and time.monotonic() < self._failed[0]:
                raise self._failed[1]
            held = self._held = (os.getpid(), self._opened())
        return held[1]

    def _opened(self) -> Any:
        try:
            return self._make()
        except (GoogleAuthError, OSError, ValueError) as error:
            failure = outage(Service("Google", "credentials-unavailable"), error)
            self._failed = (time.monotonic() + _LOOK_AGAIN_S, failure)
            raise failure from error

    def take(self) -> Any | None:
        """This process's own, to be closed, if it was opened; the next ``get`` opens another."""
        held, self._held = self._held, None
        return held[1] if held and held[0] == os.getpid() else None


def channel(transport: Any, emulator_host: str) -> grpc.Channel:
    """A channel of a generated client's transport: to Google, or to an emulator.

    Raises:
        GoogleAuthError, OSError: there are no credentials to be found.
    """
    if emulator_host:
        return grpc.insecure_channel(emulator_host, options=OPTIONS)
    credentials, _ = google.auth.default(scopes=transport.AUTH_SCOPES)
    made: grpc.Channel = transport.create_channel(
        f"{transport.DEFAULT_HOST}:443", credentials=credentials, options=OPTIONS
    )
    return made


def bounded(
    ask: Callable[[float], T],
    within_s: float,
    *,
    who: Service,
    after: Collection[type[Exception]] = SAFE_TO_REPEAT,
) -> T:
    """What ``ask(timeout_s)`` gives, in ``within_s`` at most.

    Args:
        ask: one call with this timeout, and no retries of its own.
        within_s: bound of all attempts together.
        who: the service, for the error.
        after: failures after which it is asked again while there is time.

    Raises:
        AlreadyExists, FailedPrecondition, InvalidArgument, NotFound: the service's answer.
        OutageError: anything else. A write MAY HAVE LANDED.
    """
    give_up_at = time.monotonic() + within_s
    waiting = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(tuple(after)),
        stop=tenacity.stop_before_delay(within_s),
        wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.5),
        reraise=True,
    )
    try:
        return waiting(lambda: ask(max(0.001, give_up_at - time.monotonic())))
    except _ANSWERS:
        raise
    except (answers.GoogleAPIError, GoogleAuthError, grpc.RpcError) as error:
        raise outage(who, error) from error
    except ValueError as error:  # the clients hide outages in it (python-firestore issue 879)
        hidden = error.__cause__ or error.__context__
        if isinstance(hidden, answers.GoogleAPIError):
            raise outage(who, hidden) from error
        raise


def outage(who: Service, error: Exception) -> OutageError:
    """An outage in the words of its cause; says what to mend where waiting will not help."""
    known = getattr(getattr(error, "grpc_status_code", None), "name", "")
    status = known or type(error).__name__
    # What an index is missing for ends with a long address at which it can be made.
    detail = f"{who.name}: {status}: {str(getattr(error, 'message', error))[:1000]}"
    if isinstance(error, (answers.PermissionDenied, answers.Unauthenticated, GoogleAuthError)):
        detail += ". Check the credentials and roles of this process's service account"
    return OutageError(who.code, detail, 2, known or "UNAVAILABLE")
