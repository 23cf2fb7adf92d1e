"""Log lines of a command, shown plainly on standard error."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from pcam_model.core.log import log


class StderrHandler(logging.Handler):
    """Writes messages, without time and level, to what `sys.stderr` is now: a progress bar may have replaced it.

    It does not print: in a flow Prefect turns what is printed into log lines. Results are left to the command.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's message."""
        if getattr(record, "is_result", False):
            return
        try:
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


@contextmanager
def command_logging(verbose: bool = False, quiet: bool = False) -> Iterator[None]:
    """Show the package's log lines on standard error while a command runs: from INFO on, DEBUG or WARNING."""
    handler, level, propagate = StderrHandler(), log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO)
    log.propagate = False  # Prefect's handler of the root logger would show each line a second time
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def set_verbose(value: bool) -> bool:
    """Lower the log level to DEBUG where a command's option is given."""
    if value:
        log.setLevel(logging.DEBUG)
    return value


def set_quiet(value: bool) -> bool:
    """Raise the log level to WARNING where a command's option is given."""
    if value:
        log.setLevel(logging.WARNING)
    return value


def is_verbose() -> bool:
    """Whether a command shows DEBUG lines."""
    return log.getEffectiveLevel() <= logging.DEBUG


def hide_prefect_lines() -> None:
    """Keep Prefect's own lines off the console unless the command is verbose or the user has set Prefect's log level.

    Prefect reads the variables when it is imported. The lines still reach Prefect's server and its page.
    """
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    warnings.filterwarnings("ignore", "Failed to create the Prefect home")  # flows have one of their own
    if not is_verbose() and "PREFECT_LOGGING_LEVEL" not in os.environ:
        os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


def show_retries() -> None:
    """Show Prefect's line about a task that failed and is retried later, among the lines of the package."""
    handler = StderrHandler()
    handler.addFilter(lambda record: " - Retry " in record.getMessage())
    logging.getLogger("prefect.task_runs").addHandler(handler)
