"""Proof that a queue is consumed: a task that was carried out, not a process that exists."""

from adapters import wiring
from config.settings import load
from tasks.celery import app

ALIVE_FOR_S = 35
"""How long one proof is believed: three beats of 10 s and a margin."""


@app.task(name="canary.sing", send_events=False)
def sing(component: str, by_beat: bool = False) -> None:
    """Note that this queue's worker worked just now, and perhaps that beat had it do so."""
    memory = wiring.ports().memory
    memory.beat_alive(component, ALIVE_FOR_S)
    if by_beat:
        memory.beat_alive("beat", 2 * load().health_interval_s)
