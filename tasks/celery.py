"""The Celery app and its configuration, nothing else.

Celery carries work and decides nothing: outcomes are documents and receipts. A comment beside a
setting gives its reason; the measurements are in ``docs/decisions/0002-celery-carries.md``.
"""

import gc
import warnings
from contextlib import suppress
from typing import Any

from billiard.util import get_pdeathsig  # type: ignore[attr-defined]  # its stubs lack it
from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_init, worker_ready
from kombu import Exchange, Queue

import beat_schedule
from adapters.wiring import broker_url, import_backends
from config.logs import configure
from config.settings import load
from governor.errors import OutageError
from tasks import poison
from tasks.flower_events import TellInBatches
from tasks.outcomes import NotDone
from tasks.timetable import timetable

PUBLISH_ONCE = {"max_retries": 1, "interval_start": 0.05, "interval_step": 0.0}
"""For messages the reaper repeats anyway: the sender does not wait for a broker that is away."""

ACTIONS, RUNBOOKS, LEDGER, HEALTH = "actions", "runbooks", "ledger", "health"


def configuration() -> dict[str, Any]:
    """All settings of Celery; read when the app is first used, never at import."""
    settings = load()
    return {
        "broker_url": broker_url(settings),
        "broker_transport_options": {
            "visibility_timeout": 120,  # above the longest task; the reaper is much faster
            "unacked_restore_interval": 5,  # the default sweep is every 100 s
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,  # the default waits for ever on a silent broker
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # the default gives up after 100 and exits
        "broker_connection_timeout": 2,
        # ~46 s in all, for what no reaper repeats (None means 3 tries, not for ever)
        "task_publish_retry_policy": {
            "max_retries": 12,
            "interval_start": 0.1,
            "interval_step": 0.3,
            "interval_max": 2,
        },
        "task_acks_late": True,  # at least once
        "task_reject_on_worker_lost": True,  # a killed child's message comes back at once
        "task_acks_on_failure": True,  # False would delete it
        "task_acks_on_timeout": True,  # False would requeue it and call errbacks
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # True kills without undo
        "worker_prefetch_multiplier": 1,
        "task_time_limit": 110,  # a backstop below visibility_timeout; actions set their own
        "task_annotations": {"*": {"throws": (OutageError, NotDone)}},  # known: no traceback
        "task_ignore_result": True,  # receipts are the results
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "worker_send_task_events": True,  # Flower shows live work; ticks tell nothing (send_events)
        "worker_soft_shutdown_timeout": 3,  # with REMAP_SIGTERM: bounded stops, work requeued
        "worker_hijack_root_logger": False,
        "worker_max_tasks_per_child": 10_000,
        "task_create_missing_queues": False,  # a typo must fail, not make a queue no worker reads
        "task_queues": [
            Queue(name, Exchange(name), routing_key=name)
            for name in (ACTIONS, RUNBOOKS, LEDGER, HEALTH)
        ],
        "task_default_queue": RUNBOOKS,
        "task_routes": {
            "dispatch.*": {"queue": ACTIONS},
            "execute_action.*": {"queue": ACTIONS},
            "recover_action.*": {"queue": ACTIONS},
            "upgrade_policy.watch": {"queue": HEALTH},
            "scale_governor.look": {"queue": HEALTH},
            "upgrade_policy.announce": {"queue": LEDGER},
            "reap.*": {"queue": HEALTH},
            "degrade_to_safe_mode.*": {"queue": HEALTH},
            "tally.*": {"queue": LEDGER},
            "seal.*": {"queue": LEDGER},
            "audit.*": {"queue": LEDGER},
            "revive.*": {"queue": LEDGER},
            "repair.*": {"queue": LEDGER},
            "deliver_alerts.*": {"queue": LEDGER},
            "troubles.*": {"queue": LEDGER},
        },
        "enable_utc": True,
        "timezone": "UTC",
        "beat_max_loop_interval": 1,
        "beat_scheduler": "celery.beat.Scheduler",  # every tick is claimed: no state file needed
        "beat_schedule": timetable(
            beat_schedule.entries(
                health_interval_s=settings.health_interval_s,
                probe_interval_s=settings.probe_interval_s,
                tally_interval_s=settings.tally_interval_s,
            )
        ),
    }


poison.install()
app = Celery(
    "ggen",
    include=("tasks.runbooks", "tasks.ticks", "tasks.listening"),
)
app.add_defaults(configuration)  # a callable: deferred to first use
app.steps["consumer"].add(TellInBatches)


@setup_logging.connect
def _configure_logging(**_: object) -> None:
    # Celery warns root of pickle, which nothing here accepts.
    warnings.filterwarnings("ignore", category=SecurityWarning)
    configure()


@worker_init.connect
def _load_handlers(**_: object) -> None:
    """Import what children will run before they are forked: no child pays for it, none lacks it."""
    from ggen_governor.handlers import registered

    registered()
    import_backends(load())
    with suppress(OSError):  # no Linux
        get_pdeathsig()  # each child calls its pair, for which cffi loads a parser of C: 5 MiB
    gc.collect()
    gc.freeze()  # a collection in a child would otherwise copy the pages they share


@worker_ready.connect
def _prove_consumption(sender: Any, **_: object) -> None:
    """Have each queue of a fresh worker prove at once that it consumes, not just that it runs."""
    for queue in sender.task_consumer.queues:
        if queue.name in (ACTIONS, RUNBOOKS):
            app.send_task("canary.sing", (queue.name,), queue=queue.name)
        if queue.name == LEDGER:  # what was left unsealed without a mark is found at once
            app.send_task("audit.slice", ("new", "tenants/_system", 0), queue=LEDGER)
            app.send_task("troubles.look", queue=LEDGER)
            app.send_task("upgrade_policy.announce", queue=LEDGER)
        if queue.name == HEALTH:
            app.send_task("degrade_to_safe_mode.probe", queue=HEALTH)
            app.send_task("degrade_to_safe_mode.check", queue=HEALTH)
