"""Proof that a queue is consumed: a task that was carried out, not a process that exists."""

from adapters import wiring
from tasks.celery import app

ALIVE_FOR_S = 35
"""How long one proof is believed: three beats of 10 s and a margin."""


@app.task(name="canary.sing", send_events=False)
def sing(component: str) -> None:
    """Note that this queue's worker worked just now."""
    wiring.ports().memory.beat_alive(component, ALIVE_FOR_S)
