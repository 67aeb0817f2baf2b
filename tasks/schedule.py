"""Beat (``python -m tasks.schedule``), and the app of Flower: neither carries out a task.

So they load no runbook; and Beat not Celery's command line, which imports a shell: 20 MiB less.
"""

from tasks.celery import app

__all__ = ["app"]

app.conf.include = ()

if __name__ == "__main__":
    app.Beat(loglevel="INFO", quiet=True).run()
