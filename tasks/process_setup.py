"""Set up the process that runs a flow or a task: log lines reach Prefect, mistakes are logged as sentences."""

import logging
import sys
import weakref
from contextlib import nullcontext

from prefect.context import FlowRunContext, SettingsContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler

from pcam_model.core.limits import user_message
from pcam_model.core.log import log
from pcam_model.training.interrupt import requeue_dropped_signals

RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.flow_engine", "prefect.task_engine")
FORWARDED = "pcam_forwarded"

RunLogger = logging.Logger | logging.LoggerAdapter[logging.Logger]


class UserErrorFilter(logging.Filter):
    """Logs a `PcamError`, and a lack of memory, disk or threads, as its sentence, without a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Shorten the record in place; always keeps it."""
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if error and (sentence := user_message(error)) is not None:
            record.msg, record.args, record.exc_info, record.exc_text = sentence, (), None, None
        return True


class RunLogHandler(logging.Handler):
    """Forwards records of the logger `pcam_model` to the Prefect run in which they arise.

    A thread without a run's context logs to the flow run that began last, with that run's settings: they name the
    server. Without any run, and where no other handler shows the line, it goes to standard error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flow_runs: list[tuple[weakref.ref[FlowRunContext], SettingsContext | None, RunLogger]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Log the record's message by the run's logger."""
        try:
            if logger := _run_logger():
                _forward(record, logger)
            elif flow_run := self._last_flow_run():
                settings, logger = flow_run
                with settings.model_copy() if settings else nullcontext():
                    _forward(record, logger)
            elif log.handlers == [self]:
                print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)

    def add_flow_run(self, context: FlowRunContext, logger: RunLogger) -> None:
        """Log lines of threads to this flow run, until it ends and its context is gone."""
        self.flow_runs = [each for each in self.flow_runs if each[0]() not in (None, context)]
        self.flow_runs.append((weakref.ref(context), SettingsContext.get(), logger))

    def _last_flow_run(self) -> tuple[SettingsContext | None, RunLogger] | None:
        for run, settings, logger in reversed(self.flow_runs):
            context = run()
            if context is not None and context._token is not None:  # else the flow has ended
                return settings, logger
        return None


def _forward(record: logging.LogRecord, logger: RunLogger) -> None:
    logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info, extra={FORWARDED: True})


class ConsoleFilter(logging.Filter):
    """Keeps off Prefect's console what is shown already: a line that is forwarded, or that a command shows itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether Prefect's console handler writes the record."""
        is_shown_by_command = len(log.handlers) > 1
        return record.name != log.name and not (getattr(record, FORWARDED, False) and is_shown_by_command)


_handler = RunLogHandler()
_error_filter = UserErrorFilter()
_console_filter = ConsoleFilter()


def setup_process() -> None:
    """Prepare this process for a flow, or for a task on a cluster's worker; may be called again.

    A flow calls it first, so it holds wherever Prefect runs the flow: in a container, a worker's process, a command.
    """
    for name in RUN_LOGGERS:
        logging.getLogger(name).addFilter(_error_filter)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            handler.addFilter(_console_filter)
    if _handler not in log.handlers:
        log.addHandler(_handler)
        if log.level == logging.NOTSET:
            log.setLevel(logging.INFO)
        requeue_dropped_signals()
    context, logger = FlowRunContext.get(), _run_logger()
    if context and logger:
        _handler.add_flow_run(context, logger)


def _run_logger() -> RunLogger | None:
    """The logger of the current task or flow run; None outside of a run."""
    try:
        return get_run_logger()
    except MissingContextError:
        return None
