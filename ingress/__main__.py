"""``python -m ingress``: serve the app as the settings say."""

import uvicorn

from config.logs import configure
from config.settings import load
from ingress.connections import BoundedProtocol, most_connections, open_door

if __name__ == "__main__":
    configure()
    settings = load()
    BoundedProtocol.most = most_connections()
    config = uvicorn.Config(
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
    uvicorn.Server(config).run(sockets=[open_door(config)])
