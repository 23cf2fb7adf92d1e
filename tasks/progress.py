"""Progress for people: a bar in a terminal, lines in a log, a bar and tables in Prefect's page."""

import base64
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

ARTIFACT_SECONDS, LINE_SECONDS = 2.0, 15.0


@contextmanager
def progress(what: str, unit: str = "patches") -> Iterator[Callable[[int, int], None]]:
    """Somebody to tell (done, total): shown as rate and time left wherever a person may look."""
    teller = _Teller(what, unit)
    with _bar() as bar:
        teller.bar = bar
        yield teller.tell
    teller.finish()


class _Teller:
    def __init__(self, what: str, unit: str):
        self.what, self.unit = what, unit
        self.bar: Progress | None = None
        self.artifact: Any = create_progress_artifact(0.0, key=None, description=what) if runtime.task_run.id else None
        self.began = self.sent = self.said = time.monotonic()
        self.first: int | None = None
        self.row: Any = None

    def tell(self, done: int, total: int) -> None:
        now = time.monotonic()
        self.first = done if self.first is None else self.first
        rate = (done - self.first) / max(now - self.began, 1e-9)
        if self.bar:
            self.row = self.bar.add_task(self.what, total=total, rate="") if self.row is None else self.row
            self.bar.update(self.row, completed=done, rate=f"{rate:,.0f} {self.unit}/s")
        elif now - self.said > LINE_SECONDS and rate:
            left = (total - done) / rate
            print(f"{self.what}: {done / total:.0%}, {rate:,.0f} {self.unit}/s, {left:,.0f} s left")
            self.said = now
        if self.artifact and now - self.sent > ARTIFACT_SECONDS:
            update_progress_artifact(self.artifact, 100.0 * done / max(total, 1))
            self.sent = now

    def finish(self) -> None:
        if self.artifact:
            update_progress_artifact(self.artifact, 100.0)


@contextmanager
def _bar() -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        yield bar


def show_table(key: str, rows: Sequence[Mapping[str, Any]], about: str) -> None:
    """A table on Prefect's page."""
    create_table_artifact([{name: _short(value) for name, value in row.items()} for row in rows], key, about)


def show_picture(key: str, path: Path, about: str) -> None:
    """A picture on Prefect's page, carried in its address, so that it needs no server of ours."""
    create_image_artifact(f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", key, about)


def show_text(key: str, markdown: str, about: str) -> None:
    """A page of Markdown on Prefect's page."""
    create_markdown_artifact(markdown, key, about)


def show_link(key: str, address: str, about: str) -> None:
    """An address on Prefect's page."""
    create_link_artifact(address, address, key, about)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
