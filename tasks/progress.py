"""Progress for people: where `pcam_model.core.progress` shows it, and as a bar and tables in Prefect's page."""

import base64
import contextvars
import threading
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
from prefect.logging import get_logger

from pcam_model.core import progress as people

ARTIFACT_SECONDS, PATIENCE = 2.0, 5.0


@contextmanager
def progress(what: str, unit: str = "patches") -> Iterator[Callable[[int, int], None]]:
    """Somebody to tell (done, total): shown as rate and time left wherever a person may look."""
    share = [0.0]

    def both(done: int, total: int) -> None:
        tell(done, total)
        share[0] = done / max(total, 1)

    with people.progress(what, unit) as tell, _sent_beside(what, share):
        yield both


@contextmanager
def _sent_beside(what: str, share: list[float]) -> Iterator[None]:
    """A thread keeps the bar on Prefect's page: work waits for no server that is slow or away."""
    if not runtime.task_run.id:
        yield
        return
    over = threading.Event()

    def send() -> None:
        artifact: Any = None
        while True:
            last = over.wait(ARTIFACT_SECONDS)
            with _only_shown():
                if artifact is None:
                    artifact = create_progress_artifact(0.0, key=None, description=what)
                update_progress_artifact(artifact, 100.0 if last else 100.0 * share[0])
            if last:
                return

    thread = threading.Thread(target=contextvars.copy_context().run, args=(send,), name=f"tells of {what}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(PATIENCE)


@contextmanager
def _only_shown() -> Iterator[None]:
    """What is only shown on Prefect's page never stops the work, whatever keeps the server from taking it."""
    try:
        yield
    except Exception as error:
        get_logger(__name__).debug("Prefect's page could not be told: %s", error)


def show_table(key: str, rows: Sequence[Mapping[str, Any]], about: str) -> None:
    """A table on Prefect's page."""
    _show(create_table_artifact, [{name: _short(value) for name, value in row.items()} for row in rows], key, about)


def show_picture(key: str, path: Path, about: str) -> None:
    """A picture on Prefect's page, carried in its address, so that it needs no server of ours."""
    _show(create_image_artifact, f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}", key, about)


def show_text(key: str, markdown: str, about: str) -> None:
    """A page of Markdown on Prefect's page."""
    _show(create_markdown_artifact, markdown, key, about)


def show_link(key: str, address: str, about: str) -> None:
    """An address on Prefect's page."""
    _show(create_link_artifact, address, address, key, about)


def _show(create: Callable[..., Any], *words: Any) -> None:
    """Have it shown, in order; a server that does not answer holds up the work for seconds, and is told later."""
    global _last
    before = _last

    def send() -> None:
        if before:
            before.join()
        with _only_shown():
            create(*words)

    _last = threading.Thread(target=contextvars.copy_context().run, args=(send,), name="shows", daemon=True)
    _last.start()
    _last.join(PATIENCE)


_last: threading.Thread | None = None


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
