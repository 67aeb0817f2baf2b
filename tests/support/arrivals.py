"""An endpoint that subscriptions push to: it remembers what came, and takes it when it is told."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response


class Arrivals:
    """Message ids by account, and the headers of the last push."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.takes = False
        self.seen: dict[str, set[str]] = defaultdict(set)
        self.headers: dict[str, str] = {}

    def take(self, request: Request) -> Response:
        body = request.get_json(force=True)
        account_id = body["subscription"].rpartition("/")[2].split(".")[1]
        self.seen[account_id].add(body["message"]["messageId"])
        self.headers = dict(request.headers)
        return Response(status=204 if self.takes else 503)


@contextmanager
def arrivals() -> Iterator[Arrivals]:
    path = "/v1/pubsub/signals"
    with HTTPServer(host="127.0.0.1", threaded=True) as server:
        known = Arrivals(server.url_for(path))
        server.expect_request(path, method="POST").respond_with_handler(known.take)
        yield known
