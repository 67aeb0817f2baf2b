"""Lag from Cloud Monitoring: Pub/Sub itself does not tell how much waits (D25).

The metric is sampled every 60 s and seen up to 120 s later.
https://docs.cloud.google.com/monitoring/api/ref_v3/rest/v3/projects.timeSeries/list
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import google.auth
import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession

from adapters.gcp.calls import PerProcess, Service, outage
from governor.errors import OutageError

_WHO = Service("Cloud Monitoring", "lag-unknown")
_URL = "https://monitoring.googleapis.com"
_SCOPE = "https://www.googleapis.com/auth/monitoring.read"
_METRIC = "pubsub.googleapis.com/subscription/num_unacked_messages_by_region"
_TIMEOUT_S = (3, 5)
_LOOK_BACK = timedelta(minutes=5)


class MonitoredLag:
    """See ``ports.lag.Lag`` for what it promises."""

    def __init__(
        self,
        project: str,
        *,
        is_emulated: bool = False,
        url: str = _URL,
        credentials: Any = None,
    ) -> None:
        self._list = f"{url}/v3/projects/{project}/timeSeries"
        self._is_emulated = is_emulated
        self._session = PerProcess(lambda: _session(credentials))

    def close(self) -> None:
        """Let go of every connection of this process."""
        if session := self._session.take():
            session.close()

    def undelivered(self, subscription_id: str) -> tuple[int, datetime]:
        if self._is_emulated:
            raise OutageError("lag-unknown", "the Pub/Sub emulator does not report its backlog")
        now = datetime.now(UTC)
        wanted = {
            "filter": f'metric.type="{_METRIC}" AND '
            f'resource.labels.subscription_id="{subscription_id}"',
            "interval.startTime": (now - _LOOK_BACK).isoformat(),
            "interval.endTime": now.isoformat(),
            "pageSize": "100",
        }
        try:
            answer = self._session.get().get(self._list, params=wanted, timeout=_TIMEOUT_S)
            answer.raise_for_status()
            series = answer.json().get("timeSeries", [])
            newest = [each["points"][0] for each in series]  # of each region, the newest first
            as_of = min(_moment(point["interval"]["endTime"]) for point in newest)
            return sum(int(point["value"]["int64Value"]) for point in newest), as_of
        except (requests.RequestException, GoogleAuthError) as error:
            raise outage(_WHO, error) from error
        except (LookupError, ValueError, TypeError, AttributeError) as error:
            raise OutageError(
                "lag-unknown",
                f"{_WHO.name} has no figure of {subscription_id} of these five minutes",
                60,
            ) from error


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def _session(credentials: Any) -> AuthorizedSession:
    found = credentials or google.auth.default(scopes=[_SCOPE])[0]
    return AuthorizedSession(found)
