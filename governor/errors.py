"""The errors of this system, in families named by what the caller should do.

::

    GovernorError               what happened     HTTP      exit  what to do
    ├── InputError              the caller erred  400/422   2     correct it, do not retry
    ├── DeniedError             a rule said no    403/429   3     stop, or wait ``retry_after_s``
    │   └── RetainedError       a retention forbids a deletion
    ├── ConflictError           someone was first 409       4     read again, retry a few times
    └── OutageError             a dependency is   503       5     back off; a write MAY HAVE LANDED:
    │                           down                              read and compare before repeating
    │   ├── PolicyError         a policy in force cannot be used by this process
    │   └── UnreadableError     what it gave back cannot be what was stored
    ActionError                 raised by handlers of actions
    ├── RecoverableError        the action failed and can be rolled back
    ├── RejectedError           its tenant asked for what cannot be; nothing was done
    └── UnrecoverableError      the action failed and cannot be undone: a person must look
    ActionDeadline              BaseException: the time of an action is up

Anything else is a bug of ours: HTTP 500, exit 1. Every argument goes to ``super().__init__``, or
the error would not survive the queue (pickle and Celery's JSON rebuild it from ``args``).
"""


class GovernorError(Exception):
    """A failure with a stable ``code`` for machines and a ``detail`` for people."""

    exit_code = 1

    def __init__(self, code: str, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(code, detail, retry_after_s)
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.detail


class InputError(GovernorError):
    """The caller is wrong; repeating the same call fails the same way. Nothing was changed."""

    exit_code = 2


class DeniedError(GovernorError):
    """A policy, quota or state refused the call. Nothing was changed but the refusal's count."""

    exit_code = 3


class RetainedError(DeniedError):
    """A retention forbids the deletion; ``until`` says up to when, if the store does."""

    def __init__(
        self, code: str, detail: str, retry_after_s: int | None = None, until: str | None = None
    ) -> None:
        super().__init__(code, detail, retry_after_s)
        self.args = (code, detail, retry_after_s, until)
        self.until = until


class ConflictError(GovernorError):
    """A precondition did not hold: someone moved first. Nothing of this call was written."""

    exit_code = 4


class OutageError(GovernorError):
    """A dependency did not answer. A write may have landed: re-read before you repeat it.

    ``status`` says how it failed, in gRPC's words (``UNAVAILABLE``, ``RESOURCE_EXHAUSTED`` …).
    """

    exit_code = 5

    def __init__(
        self, code: str, detail: str, retry_after_s: int | None = None, status: str = "UNAVAILABLE"
    ) -> None:
        super().__init__(code, detail, retry_after_s)
        self.args = (code, detail, retry_after_s, status)
        self.status = status


class PolicyError(OutageError):
    """A policy in force cannot be used here (a handler is missing): ours to mend, not theirs."""


class UnreadableError(OutageError):
    """A store gave back what cannot be what was stored in it."""


_OURS_TO_MEND = ("malformed-secret", "secret-unreadable", "policy-unusable")


def is_ours_to_mend(error: GovernorError) -> bool:
    """Whether only the operator can mend it, and its words are for the log alone."""
    return error.code in _OURS_TO_MEND


def public_detail(error: Exception) -> str:
    """The detail of an error for clients: no place on the server, no word of a bug."""
    if not isinstance(error, GovernorError):
        return f"a fault of ours ({type(error).__name__}); its operator finds it in the log"
    if is_ours_to_mend(error):
        return "the server cannot use its own configuration; its operator finds why in its log"
    return error.detail


class ActionError(Exception):
    """What a handler raises to say how it failed; ``code`` ends up in the receipt."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code, detail)
        self.code = code
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or self.code


class RecoverableError(ActionError):
    """The handler failed and its rollback will restore the state before it."""


class RejectedError(ActionError):
    """Raised by a handler: the tenant asked for what cannot be done; nothing was done.

    There is nothing to undo, and no alert.
    """


class UnrecoverableError(ActionError):
    """The handler failed and nothing can undo it; the failure is escalated."""


class ActionDeadline(BaseException):
    """An action's time is up. Not an Exception, so that library code does not swallow it."""
