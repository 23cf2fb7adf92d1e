import errno
import importlib
import logging
import pkgutil

import pytest
from prefect import flow, task
from prefect.tasks import Task
from prefect.testing.utilities import prefect_test_harness

import tasks
from pcam_model.core.errors import BadSource, Transient
from pcam_model.registry.backends.base import StoreAway
from tasks.policy import RETRYING, OneSentence, passes_by_itself


@pytest.mark.parametrize(
    ("fault", "passes"),
    [
        (Transient("the line is down"), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (StoreAway("the store does not answer"), True),
        (OSError(errno.ESTALE, "stale"), True),
        (OSError(errno.ENOSPC, "full"), False),
        (BadSource("no such file"), False),
        (ValueError("a bug"), False),
        (None, False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(fault: object, passes: bool) -> None:
    assert passes_by_itself(fault) is passes


def test_a_mistake_is_logged_as_its_sentence_and_a_bug_with_its_traceback() -> None:
    for fault, kept in ((BadSource("there is nothing here"), False), (ValueError("a bug"), True)):
        record = logging.LogRecord("x", logging.ERROR, "", 0, "Encountered %r", (fault,), (type(fault), fault, None))
        assert OneSentence().filter(record)
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
            raise Transient("the line is down")
        return "done"

    @task(**policy)
    def mistake() -> None:
        calls["mistake"] += 1
        raise BadSource("there is nothing here")

    @flow
    def both() -> str:
        with pytest.raises(BadSource):
            mistake()
        return passing()

    with prefect_test_harness(server_startup_timeout=120):
        assert both() == "done"
    assert calls == {"passing": 3, "mistake": 1}
