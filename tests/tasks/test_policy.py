import errno
import importlib
import logging
import pkgutil

import pytest
from prefect import flow, task
from prefect.tasks import Task
from prefect.testing.utilities import prefect_test_harness

import tasks
from pcam_model.core.errors import SourceError, TransientError
from pcam_model.registry.backends.base import StoreUnavailable
from tasks.policy import RETRYING, UserErrorFilter, is_transient_fault


@pytest.mark.parametrize(
    ("fault", "passes"),
    [
        (TransientError("the line is down"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (StoreUnavailable("the store does not answer"), True),
        (OSError(errno.ESTALE, "stale"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (SourceError("no such file"), False),
        (ValueError("a bug"), False),
        (None, False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(fault: object, passes: bool) -> None:
    assert is_transient_fault(fault) is passes


def test_a_mistake_is_logged_as_its_sentence_and_a_bug_with_its_traceback() -> None:
    for fault, kept in ((SourceError("there is nothing here"), False), (ValueError("a bug"), True)):
        record = logging.LogRecord("x", logging.ERROR, "", 0, "Encountered %r", (fault,), (type(fault), fault, None))
        assert UserErrorFilter().filter(record)
        assert bool(record.exc_info) is kept
        assert record.getMessage() == ("Encountered ValueError('a bug')" if kept else "there is nothing here")


def test_no_step_is_waited_for_without_end_or_given_up_at_its_first_fault() -> None:
    modules = [importlib.import_module(f"tasks.{found.name}") for found in pkgutil.iter_modules(tasks.__path__)]
    steps = {step.name: step for module in modules for step in vars(module).values() if isinstance(step, Task)}
    assert {"check", "download", "pack", "fine_tune", "score", "publish", "compare"} <= set(steps)
    assert [name for name, step in steps.items() if not step.timeout_seconds or not step.retries] == []


def test_prefect_retries_a_passing_fault_and_not_a_mistake() -> None:
    calls = {"passing": 0, "mistake": 0}
    policy = RETRYING | {"retry_delay_seconds": 0, "retry_jitter_factor": None}

    @task(**policy)
    def passing() -> str:
        calls["passing"] += 1
        if calls["passing"] < 3:
            raise TransientError("the line is down")
        return "done"

    @task(**policy)
    def mistake() -> None:
        calls["mistake"] += 1
        raise SourceError("there is nothing here")

    @flow
    def both() -> str:
        with pytest.raises(SourceError):
            mistake()
        return passing()

    with prefect_test_harness(server_startup_timeout=120):
        assert both() == "done"
    assert calls == {"passing": 3, "mistake": 1}
