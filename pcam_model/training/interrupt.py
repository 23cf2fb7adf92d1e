"""SIGTERM and SIGINT in training: finish the step, save the state, then stop."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pcam_model.core.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
RESUME_HINT = "the state is saved, and the same command continues from there"
RESEND_DELAY_S = 0.1


class StopRequest:
    """The signal that asks training to stop, and the handlers that were there before."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self.previous = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}

    def handle(self, number: int, _frame: FrameType | None = None) -> None:
        """Remember the signal; a second one does not wait for the step but has its previous effect at once."""
        is_second, self.signal = self.signal is not None, signal.Signals(number)
        if is_second:
            self.forward()
            raise Interrupted(f"interrupted by {self.signal.name} at once; the last checkpoint is kept")

    def forward(self) -> None:
        """Restore the previous handlers and call the signal's: Prefect's, or a command's own."""
        self.restore()
        number = self.signal or signal.SIGTERM
        handler = self.previous.get(number)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(number, None)

    def restore(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self.previous.items():
            if signal.getsignal(number) == self.handle:
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Inside the block SIGTERM and SIGINT only set `signal`; who sees it saves the state and raises Interrupted.

    The signal is then forwarded to its previous handler. Signals belong to the main thread: in another one nothing is
    changed.
    """
    stop = StopRequest()
    try:
        for number in stop.previous:
            signal.signal(number, stop.handle)
    except ValueError:
        pass
    try:
        yield stop
    except Interrupted:
        if stop.signal:
            stop.forward()
        raise
    finally:
        stop.restore()
    if stop.signal:  # it came after the last step
        stop.forward()
        raise Interrupted(f"interrupted by {stop.signal.name}; {RESUME_HINT}")


def requeue_dropped_signals() -> None:
    """Send a signal again whose exception Python dropped, so that it is not lost.

    A handler runs wherever the main thread is; what it raises in a finaliser or a weak reference's callback goes to
    `sys.unraisablehook` only.
    """
    previous = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        error = dropped.exc_value
        number = getattr(error, "signal", signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM)
        if isinstance(error, Interrupted | KeyboardInterrupt) or type(error).__name__ == "TerminationSignal":
            timer = threading.Timer(RESEND_DELAY_S, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
        else:
            previous(dropped)

    sys.unraisablehook = hook
