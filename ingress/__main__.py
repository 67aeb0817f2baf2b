"""``python -m ingress``: serve the app as the settings say."""

import uvicorn

from config.logs import configure
from config.settings import load

if __name__ == "__main__":
    configure()
    settings = load()
    uvicorn.run(
        "ingress.app:create_app",
        factory=True,
        host=settings.http_host,
        port=settings.http_port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
