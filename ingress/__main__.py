"""``python -m ingress``: serve the app as the settings say."""

import uvicorn

from config.logs import configure
from config.settings import load
from ingress.connections import BoundedProtocol, most_connections

if __name__ == "__main__":
    configure()
    settings = load()
    BoundedProtocol.most = most_connections()
    uvicorn.run(
        "ingress.app:create_app",
        factory=True,
        http=BoundedProtocol,
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
