"""For handlers written for release 0.1.0: what ``ggen_governor`` exports now. Goes with 0.3."""

import warnings

from ggen_governor.handlers import ActionContext, action

__all__ = ["ActionContext", "action"]

warnings.warn(
    "tasks.handlers is for release 0.1.0: import from ggen_governor instead",
    DeprecationWarning,
    stacklevel=2,
)
