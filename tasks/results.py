"""An outcome as Celery takes it: a result, or an exception that means a state in Flower."""

from celery.exceptions import Retry

from tasks.outcomes import Ending, NotDone, Outcome


def result_of(told: Outcome) -> str:
    """What a task returns.

    Raises:
        Retry: it was put off; Celery acknowledges the message, and requeues nothing.
        NotDone: it failed, as the outcome says.
    """
    if told.ending is Ending.PUT_OFF:
        raise Retry(told.why, exc=NotDone(told.why))
    if told.ending is Ending.FAILED:
        raise told.failure(told.why)
    return str(told.ending)
