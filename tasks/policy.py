"""Retries and time limits, of tasks and of plain steps."""

import errno
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff
from prefect.utilities.annotations import opaque
from prefect.utilities.timeout import timeout

from pcam_model.core.errors import PcamError, TransientError
from pcam_model.core.log import log
from pcam_model.core.retry import retry_call
from pcam_model.registry.backends.base import StoreUnavailable

TRANSIENT_ERRNOS = {errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
RETRIES = 3
FIRST_RETRY_DELAY_S = 10

P = ParamSpec("P")
R = TypeVar("R")


def is_transient_error(error: object) -> bool:
    """Whether trying again may help: a fault of a network or a disk, no user's mistake and no bug."""
    if isinstance(error, StoreUnavailable):
        return True
    if isinstance(error, PcamError):
        return False
    if isinstance(error, TransientError | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS


def should_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Prefect's `retry_condition_fn`: whether a failed task is retried."""
    return is_transient_error(
        state.data if isinstance(state.data, BaseException) else state.result(raise_on_failure=False)
    )


# Results stay in the process, and the run's store says which steps are done: Prefect's own cache has no part in it.
RETRY_OPTIONS: dict[str, Any] = {
    "retries": RETRIES,
    "retry_delay_seconds": exponential_backoff(FIRST_RETRY_DELAY_S),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": should_retry,
    "cache_policy": NO_CACHE,
}


class Step(Task[P, R]):
    """A task that Prefect's page links to the tasks whose results are its arguments, or elements of a list argument.

    A plain task is linked by every value inside its arguments, down to strings that happen to be one object.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task."""
        return super().__call__(*map(_opaque, args), **{name: _opaque(value) for name, value in kwargs.items()})


def _opaque(argument: Any) -> Any:
    return [opaque(element) for element in argument] if isinstance(argument, list) else opaque(argument)


def step(
    name: str, hours: float, run_name: str | Callable[[dict[str, Any]], str] = ""
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """Decorate a function as a task with retries and a time limit for each attempt.

    A step resumes where an earlier attempt stopped, so an attempt that ran out of time is retried.

    Args:
        name: of the task.
        hours: the time limit.
        run_name: of the task's runs, which may be made from `parameters`; empty: as the task.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        options = RETRY_OPTIONS | {"task_run_name": run_name or name, "timeout_seconds": hours * 3600}
        return Step(function, name=name, **options)

    return decorate


def retried(
    hours: float, retries: int = RETRIES, first_delay_s: float = FIRST_RETRY_DELAY_S
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function with the retries and the time limit of a task; Prefect's page does not show it.

    It is for what only looks something up, or writes a record.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def with_retries(*args: P.args, **kwargs: P.kwargs) -> R:
            def attempt() -> R:
                with timeout(hours * 3600):
                    return function(*args, **kwargs)

            return retry_call(
                attempt,
                retry_on=is_transient_error,
                attempts=retries + 1,
                first_wait_s=first_delay_s,
                on_retry=_log_retry,
            )

        return with_retries

    return decorate


def _log_retry(error: BaseException, seconds: float) -> None:
    log.warning("%s; trying again in %.0f s", str(error) or type(error).__name__, seconds)
