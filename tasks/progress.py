"""Progress for people: where `pcam_model.progress` shows it, and as a bar and tables in Prefect's page."""

import base64
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

from pcam_model import progress as people

ARTIFACT_SECONDS = 2.0


@contextmanager
def progress(what: str, unit: str = "patches") -> Iterator[Callable[[int, int], None]]:
    """Somebody to tell (done, total): shown as rate and time left wherever a person may look."""
    artifact: Any = create_progress_artifact(0.0, key=None, description=what) if runtime.task_run.id else None
    sent = time.monotonic()

    def both(done: int, total: int) -> None:
        nonlocal sent
        tell(done, total)
        if artifact and time.monotonic() - sent > ARTIFACT_SECONDS:
            update_progress_artifact(artifact, 100.0 * done / max(total, 1))
            sent = time.monotonic()

    with people.progress(what, unit) as tell:
        yield both
    if artifact:
        update_progress_artifact(artifact, 100.0)


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
