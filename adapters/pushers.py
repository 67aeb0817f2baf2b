"""Authorize unsigned pushes: the embedded pump's by its token, all of them under the emulator."""

import hmac

from governor.errors import InputError
from ports.secrets import Secrets


class TokenPushers:
    """The embedded signal pump. See ``ports.pushers.Pushers`` for what it promises."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def check(self, authorization: str | None) -> None:
        expected = f"Bearer {self._secrets.push_token()}"
        if not hmac.compare_digest((authorization or "").encode(), expected.encode()):
            raise unauthorized()


class AnyPusher:
    """For the Pub/Sub emulator, which signs nothing; ``adapters.wiring`` refuses it elsewhere."""

    def check(self, authorization: str | None) -> None:
        pass


def unauthorized() -> InputError:
    """The same words whatever was wrong."""
    return InputError("unauthorized", "only the subscription's own pusher may deliver here")
