"""Progress for people: a bar in a terminal, lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

LINE_SECONDS = 15.0


@contextmanager
def progress(
    what: str, unit: str = "patches", say: Callable[[str], None] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Somebody to tell (done, total): shown as rate and time left; without a terminal `say` gets a line at times."""
    with _bar() as bar:
        yield _Teller(what, unit, bar, say).tell


class _Teller:
    def __init__(self, what: str, unit: str, bar: Progress | None, say: Callable[[str], None] | None) -> None:
        self.what, self.unit, self.bar = what, unit, bar
        self.row = bar.add_task(what, total=None, rate="") if bar else None
        self.say = say or print  # looked up now: who runs this may have replaced `print`
        self.began = self.said = time.monotonic()
        self.first: int | None = None

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.first = done if self.first is None else self.first
        rate = (done - self.first) / max(now - self.began, 1e-9)
        if self.bar and self.row is not None:
            self.bar.update(self.row, completed=done, total=total, rate=f"{rate:,.0f} {self.unit}/s")
        elif now - self.said > LINE_SECONDS and rate:
            left = (total - done) / rate
            self.say(f"{self.what}: {done / total:.0%}, {rate:,.0f} {self.unit}/s, {left:,.0f} s left")
            self.said = now


@contextmanager
def _bar() -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        yield bar
