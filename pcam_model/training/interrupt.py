"""SIGTERM and SIGINT: in training the step is finished and saved before anything ends, and nowhere is one lost."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pcam_model.core.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)
RESUME_HINT = "what was done is saved, and the same command goes on from there"


AGAIN = 0.1  # seconds


class StopRequest:
    """Whether somebody has asked training to stop."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        self.before = {number: now for number, now in handlers.items() if now is not signal.SIG_IGN}

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Stop after this step. Who asks twice does not want to wait: then the signal does what it did before."""
        again, self.asked = self.asked is not None, signal.Signals(number)
        if again:
            self.hand_on()
            raise Interrupted(f"interrupted by {self.asked.name} at once; what was saved before is kept")

    def hand_on(self) -> None:
        """Let the signal have the effect that it has outside training: on Prefect's handler, or a command's own."""
        self.restore()
        asked = self.asked or signal.SIGTERM
        handler = self.before.get(asked)
        if callable(handler) and handler is not signal.default_int_handler:
            handler(asked, None)

    def restore(self) -> None:
        """Give the signals back."""
        for number, handler in self.before.items():
            if signal.getsignal(number) == self.ask:
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)


@contextmanager
def graceful_stop() -> Iterator[StopRequest]:
    """Inside, SIGTERM and SIGINT only set `asked`: who sees it saves, raises Interrupted, and the signal is handed on.

    Signals belong to the main thread: in another one nothing is changed, and a signal does what it always did.
    """
    stop = StopRequest()
    try:
        for number in stop.before:
            signal.signal(number, stop.ask)
    except ValueError:
        pass
    try:
        yield stop
    except Interrupted:
        if stop.asked:
            stop.hand_on()
        raise
    finally:
        stop.restore()
    if stop.asked:  # too late for another step: what was done is whole
        stop.hand_on()
        raise Interrupted(f"interrupted by {stop.asked.name}; {RESUME_HINT}")


def requeue_dropped_signals() -> None:
    """Have a signal come again whose exception Python had to drop, so that the process went on as if nobody had asked.

    A handler runs wherever the main thread is, and in a finaliser or a weak reference's callback what it raises goes
    nowhere but to this hook.
    """
    before = sys.unraisablehook

    def hook(dropped: "sys.UnraisableHookArgs") -> None:
        fault = dropped.exc_value
        number = getattr(fault, "signal", signal.SIGINT if isinstance(fault, KeyboardInterrupt) else signal.SIGTERM)
        if isinstance(fault, Interrupted | KeyboardInterrupt) or type(fault).__name__ == "TerminationSignal":
            again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))
            again.daemon = True
            again.start()
        else:
            before(dropped)

    sys.unraisablehook = hook
