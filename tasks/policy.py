"""What all tasks share: what is worth a retry, how mistakes are said, and where this machine keeps things."""

import errno
import logging
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from pcam_model.core.errors import PcamError, TransientError
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.training.interrupt import requeue_dropped_signals

PASSING_FAULTS = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}


def is_transient_fault(fault: object) -> bool:
    """Whether trying again may help: a network's or a disk's fault, never a user's mistake or a bug."""
    if isinstance(fault, StoreUnavailable):
        return True
    if isinstance(fault, PcamError):
        return False
    if isinstance(fault, TransientError | ConnectionError | TimeoutError):
        return True
    return isinstance(fault, OSError) and fault.errno in PASSING_FAULTS


def is_transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """For Prefect: whether a failed task is worth a retry."""
    return is_transient_fault(
        state.data if isinstance(state.data, BaseException) else state.result(raise_on_failure=False)
    )


# Results stay in the process and what is done stands in the store, so Prefect's own cache is left out.
RETRYING: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_transient,
    "cache_policy": NO_CACHE,
}


def retry_policy(hours: float) -> dict[str, Any]:
    """The same, for a step that is given up after so long and tried again: it goes on where it was."""
    return RETRYING | {"timeout_seconds": hours * 3600}


class UserErrorFilter(logging.Filter):
    """A user's mistake is logged as its sentence, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record in place; always keeps it."""
        fault = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(fault, PcamError):
            record.msg, record.args, record.exc_info, record.exc_text = str(fault), (), None, None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs", "prefect.flow_engine", "prefect.task_engine"):
    logging.getLogger(_name).addFilter(UserErrorFilter())
requeue_dropped_signals()
