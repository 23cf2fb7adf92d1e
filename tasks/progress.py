"""Names, progress bars, tables, pictures and links on Prefect's page, sent so that no work waits for the server."""

import base64
import contextvars
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from PIL import Image
from prefect import runtime
from prefect.artifacts import (
    TableArtifact,
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.logging import get_logger

from pcam_model.core import progress as core_progress

PROGRESS_INTERVAL_S = 2.0
SEND_TIMEOUT_S = 5.0
PICTURE_BYTES = 150_000  # as PNG; in base64 a third more. Prefect publishes no event above 1.5 MB
PICTURE_WIDTHS = (900, 700, 500, 350)  # pixels


@contextmanager
def progress(description: str, unit: str = "patches") -> Iterator[Callable[[int, int], None]]:
    """A callback `on_progress(done, total)`, shown in the terminal or the log and as a bar on Prefect's page."""
    percent = [0.0]

    def on_progress(done: int, total: int) -> None:
        show(done, total)
        percent[0] = 100 * done / max(total, 1)

    with core_progress.progress(description, unit) as show, _progress_artifact(description, percent):
        yield on_progress


@contextmanager
def _progress_artifact(description: str, percent: list[float]) -> Iterator[None]:
    """A progress artifact of the task run, updated from a thread; nothing outside of a task."""
    if not runtime.task_run.id:
        yield
        return
    finished = threading.Event()

    def update() -> None:
        artifact: Any = None
        while True:
            is_last = finished.wait(PROGRESS_INTERVAL_S)
            with _errors_ignored():
                if artifact is None:
                    artifact = create_progress_artifact(0.0, key=None, description=description)
                update_progress_artifact(artifact, 100.0 if is_last else percent[0])
            if is_last:
                return

    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(update,), name=f"progress of {description}", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        finished.set()
        thread.join(SEND_TIMEOUT_S)


class ArtifactQueue:
    """Sends artifacts and names in order, each from a thread with the caller's run context.

    The caller waits for its artifact, but for `SEND_TIMEOUT_S` at most: where the server does not answer, it is sent
    later, after those before it.
    """

    def __init__(self) -> None:
        self._last: threading.Thread | None = None
        self._lock = threading.Lock()

    def put(self, send_to_server: Callable[..., Any], *args: Any) -> None:
        """Have `send_to_server(*args)` called; what it raises is logged and ignored."""
        context = contextvars.copy_context()
        with self._lock:
            previous = self._last

            def send() -> None:
                if previous is not None:
                    previous.join()
                with _errors_ignored():
                    send_to_server(*args)

            thread = threading.Thread(target=context.run, args=(send,), name="artifacts", daemon=True)
            self._last = thread
            thread.start()
        thread.join(SEND_TIMEOUT_S)


ARTIFACTS = ArtifactQueue()


@contextmanager
def _errors_ignored() -> Iterator[None]:
    """Log what the block raises: an artifact never stops the work, whatever keeps the server from taking it."""
    try:
        yield
    except Exception as error:
        get_logger(__name__).debug("Prefect's page was not updated: %s", error)


def name_flow_run(name: str) -> None:
    """Give the current flow run another name on Prefect's page; outside of a flow run, do nothing."""
    if runtime.flow_run.id and runtime.flow_run.name != name:
        ARTIFACTS.put(_rename_flow_run, UUID(str(runtime.flow_run.id)), name)


def _rename_flow_run(flow_run_id: UUID, name: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run_id, name=name).raise_for_status()


def show_table(key: str, rows: Sequence[Mapping[str, Any]], description: str) -> None:
    """Show a table on Prefect's page; floats with four digits."""
    ARTIFACTS.put(create_table_artifact, _rounded_rows(rows), key, description)


class GrowingTable:
    """A table on Prefect's page whose rows come one after the other: one artifact, which is updated."""

    def __init__(self, key: str, description: str) -> None:
        self.key, self.description = key, description
        self._artifact_id: Any = None

    def show(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Show these rows in place of those before; floats with four digits."""
        ARTIFACTS.put(self._send, _rounded_rows(rows))

    def _send(self, rows: list[dict[str, Any]]) -> None:
        if self._artifact_id is None:
            self._artifact_id = create_table_artifact(rows, self.key, self.description)
            return
        content: Any = TableArtifact(table=rows).format()
        with get_client(sync_client=True) as client:
            client.update_artifact(self._artifact_id, ArtifactUpdate(data=content))


def show_picture(key: str, path: Path, description: str) -> None:
    """Show a picture on Prefect's page, scaled down and carried in its address: it needs no server of its own."""
    encoded = base64.b64encode(small_png(path)).decode()
    ARTIFACTS.put(create_image_artifact, f"data:image/png;base64,{encoded}", key, description)


def show_text(key: str, markdown: str, description: str) -> None:
    """Show Markdown on Prefect's page."""
    ARTIFACTS.put(create_markdown_artifact, markdown, key, description)


def show_link(key: str, address: str, description: str) -> None:
    """Show an address on Prefect's page."""
    ARTIFACTS.put(create_link_artifact, address, address, key, description)


def small_png(path: Path) -> bytes:
    """A picture as PNG of 256 colours, at most 900 pixels wide and below `PICTURE_BYTES` where a scale allows it."""
    content = b""
    with Image.open(path) as file:
        picture = file.convert("RGB")
    for width in PICTURE_WIDTHS:
        scaled = picture.copy()
        scaled.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        scaled.quantize(256).save(buffer, "PNG", optimize=True)
        content = buffer.getvalue()
        if len(content) <= PICTURE_BYTES:
            break
    return content


def _rounded_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{name: _rounded(value) for name, value in row.items()} for row in rows]


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
