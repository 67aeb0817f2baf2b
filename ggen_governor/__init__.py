"""What code of your own imports from ggen governor; nothing else here is for it.

::

    from ggen_governor import ActionContext, RecoverableError, UnrecoverableError, action

``docs/actions.md`` tells how to write an action.
"""

from ggen_governor.handlers import ActionContext, action
from governor.errors import RecoverableError, RejectedError, UnrecoverableError

__all__ = [
    "ActionContext",
    "RecoverableError",
    "RejectedError",
    "UnrecoverableError",
    "action",
]
