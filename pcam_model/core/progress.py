"""Progress of long work: a bar in a terminal, log lines otherwise."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pcam_model.core.log import log

LOG_INTERVAL_S = 15.0


@contextmanager
def progress(description: str, unit: str = "patches") -> Iterator[Callable[[int, int], None]]:
    """A callback `on_progress(done, total)` that shows rate and time left.

    Where standard error is a terminal it is a bar that goes away at the end, otherwise a log line every 15 seconds.
    """
    if not sys.stderr.isatty():
        yield _LogProgress(description, unit)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        yield _BarProgress(description, unit, bar)


class _Rate:
    """Items per second since the first call: what was done before it, as on resuming, does not count.

    A smaller count than the last one is the beginning of another pass.
    """

    def __init__(self) -> None:
        self.start_time = time.monotonic()
        self.first_done: int | None = None
        self.last_done = 0

    def update(self, done: int, now: float) -> float:
        if self.first_done is None:
            self.first_done = done
        elif done < self.last_done:
            self.start_time, self.first_done = now, done
        self.last_done = done
        return (done - self.first_done) / max(now - self.start_time, 1e-9)


class _BarProgress:
    def __init__(self, description: str, unit: str, bar: Progress) -> None:
        self.unit, self.bar, self.rate = unit, bar, _Rate()
        self.task = bar.add_task(description, total=None, rate="")

    def __call__(self, done: int, total: int) -> None:
        rate = self.rate.update(done, time.monotonic())
        self.bar.update(self.task, completed=done, total=total, rate=f"{_format_rate(rate)} {self.unit}/s")


class _LogProgress:
    def __init__(self, description: str, unit: str) -> None:
        self.description, self.unit, self.rate = description, unit, _Rate()
        self.last_log = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        rate = self.rate.update(done, now)
        if now - self.last_log > LOG_INTERVAL_S and rate:
            left = (total - done) / rate
            log.info("%s: %.0f %%, %s %s/s, %s s left", self.description, 100 * done / total, _format_rate(rate),
                     self.unit, f"{left:,.0f}")  # fmt: skip
            self.last_log = now


def _format_rate(rate: float) -> str:
    """A rate with at least two digits, as in `0.35`, `3.5` and `1,240`."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
