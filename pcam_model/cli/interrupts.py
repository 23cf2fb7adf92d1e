"""SIGTERM and SIGINT during `pcam train`: the command ends with exit code 75."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from pcam_model.core.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` on SIGTERM and SIGINT, from here to the end of the process.

    Training takes the signals over, to finish its step and save it first. A signal that is ignored, as in a script's
    background, stays ignored.
    """
    from pcam_model.training.interrupt import requeue_dropped_signals

    requeue_dropped_signals()
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    try:
        yield
    except Exception as error:
        if _was_terminated(error):
            _interrupt(signal.SIGTERM, None)
        raise


def _interrupt(number: int, _frame: object) -> None:
    raise Interrupted(f"interrupted by {signal.Signals(number).name}; the same command resumes")


def _was_terminated(error: BaseException) -> bool:
    """Whether an error is Prefect's signal of SIGTERM, or was raised while that was handled, as between two tasks."""
    handled = error.__context__
    return type(error).__name__ == "TerminationSignal" or (handled is not None and _was_terminated(handled))
