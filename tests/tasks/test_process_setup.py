"""Log lines of the library reach Prefect's run, once; a user's mistake is logged as its sentence."""

import logging
import threading
import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import LogFilter
from prefect.client.schemas.objects import Log
from prefect.runtime import flow_run
from prefect_server import drain

from pcam_model.core.errors import SourceError
from pcam_model.core.log import log
from tasks import process_setup
from tasks.process_setup import UserErrorFilter, setup_process

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def logger_restored() -> Iterator[None]:
    level = log.level
    yield
    log.removeHandler(process_setup._handler)
    log.setLevel(level)


def test_a_mistake_is_logged_as_its_sentence_and_a_bug_with_its_traceback() -> None:
    for error, has_traceback in ((SourceError("there is nothing here"), False), (ValueError("a bug"), True)):
        record = logging.LogRecord("x", logging.ERROR, "", 0, "Encountered %r", (error,), (type(error), error, None))
        assert UserErrorFilter().filter(record)
        assert bool(record.exc_info) is has_traceback
        assert record.getMessage() == ("Encountered ValueError('a bug')" if has_traceback else "there is nothing here")
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), (MemoryError, MemoryError(), None))
    assert UserErrorFilter().filter(record)
    assert record.exc_info is None
    assert record.getMessage().startswith("the memory is used up (MemoryError)")


@task(name="packing")
def packing() -> None:
    log.info("from the task, %d patches", 5)
    thread = threading.Thread(target=log.warning, args=("from the task's thread",))
    thread.start()
    thread.join()


@flow(name="logs")
def logs() -> str:
    for _ in range(2):  # a flow that another one calls sets the process up again
        setup_process()
    log.info("from the flow")
    packing()
    return str(flow_run.id)


def lines_of(flow_run_id: str, count: int) -> list[Log]:
    """The first lines of the library in a run's log."""
    drain()
    only = LogFilter.model_validate({"flow_run_id": {"any_": [UUID(flow_run_id)]}})
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while True:
            lines = [line for line in client.read_logs(only) if line.message.startswith("from ")]
            if len(lines) >= count or time.monotonic() > deadline:
                return lines
            time.sleep(0.2)


def test_lines_of_flow_task_and_thread_reach_the_runs_log_once(prefect: str) -> None:
    lines = sorted(lines_of(logs(), 3), key=lambda line: line.timestamp)
    assert [(line.message, line.level, bool(line.task_run_id)) for line in lines] == [
        ("from the flow", logging.INFO, False),
        ("from the task, 5 patches", logging.INFO, True),
        ("from the task's thread", logging.WARNING, False),
    ]


def test_a_line_outside_of_a_run_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    setup_process()
    log.info("nobody runs")
    assert capsys.readouterr().err == "nobody runs\n"


def test_a_command_that_shows_the_lines_itself_is_shown_them_once(
    prefect: str, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = list[str]()
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        lines = lines_of(logs(), 3)
    finally:
        log.removeHandler(handler)
    assert shown == ["from the flow", "from the task, 5 patches", "from the task's thread"]
    assert len(lines) == 3
    assert "from the" not in "".join(capfd.readouterr())
