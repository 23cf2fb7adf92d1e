"""Upload of a running step's checkpoints and metrics, and their download where it is resumed elsewhere."""

import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pydantic import Field

from pcam_model.core.checkpoint_names import PREVIOUS, epoch_of
from pcam_model.core.errors import ModelError, PcamError
from pcam_model.core.files import link_or_copy, write_atomic
from pcam_model.core.log import log
from pcam_model.core.parsing import parse_record
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.manifest import FileRecord, Files, json_bytes
from pcam_model.registry.runs import RunStore
from pcam_model.registry.transfer import fetch_verified

SYNC_INTERVAL_S = 15.0
JOIN_TIMEOUT_S = 5.0  # for an upload under way when the step ends
INTERRUPTED_JOIN_TIMEOUT_S = 60.0  # for the last checkpoint of an interrupted step
CHECKPOINT_SUFFIX, METRICS_SUFFIX = ".safetensors", ".jsonl"
LIVE_DIR, LIVE_FILE = "live", "live.json"
FILE_NAME = r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$"


class LiveState(Record):
    """The content of live.json: what a running step has in the store."""

    checkpoint: str = Field(default="", pattern=rf"^$|{FILE_NAME}")
    """The file name of the checkpoint to resume from; empty where there is none."""
    metrics: tuple[str, ...] = ()
    """File names of the metrics that led to it."""
    files: Files
    """The checkpoint, and the weights of single epochs, by name below `live/`."""


class LiveSync:
    """Context in which a thread uploads each new checkpoint and all complete lines of the metrics in a folder.

    Metrics go to `<step>/<name>`, for readers elsewhere. A checkpoint goes to a name of its own below `<step>/live/`,
    and `live/live.json` names it once it is complete; the same holds for the weights of single epochs, for as long as
    they are in the folder. Files have to be replaced, not rewritten. A store that is unavailable is logged once.

    Left by an interruption (an exception that is no `Exception`), it uploads what is new once more.
    """

    def __init__(self, run: RunStore, step: str, folder: Path, interval_s: float = SYNC_INTERVAL_S) -> None:
        """`folder` is the one in which the step works."""
        self.run, self.step, self.folder, self.interval_s = run, step, folder, interval_s
        self._mtimes: dict[str, int] = {}  # of the files that were uploaded last
        self._uploaded: dict[str, tuple[str, FileRecord]] = {}  # by file name: name below live/, size and digest
        self._checkpoint = ""
        self._has_warned = self._interrupted = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"live sync {step}", daemon=True)

    def __enter__(self) -> "LiveSync":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupted = kind is not None and not issubclass(kind, Exception)
        self._stop.set()
        self._thread.join(INTERRUPTED_JOIN_TIMEOUT_S if self._interrupted else JOIN_TIMEOUT_S)

    def sync_now(self) -> None:
        """Upload the files that changed since the last call; the checkpoint before single epochs."""
        for path in sorted(self.folder.glob("*"), key=lambda path: (epoch_of(path.name) is not None, path.name)):
            is_wanted = path.suffix in (CHECKPOINT_SUFFIX, METRICS_SUFFIX) and path.name != PREVIOUS
            if is_wanted and not path.name.startswith("."):
                with suppress(FileNotFoundError):  # training has removed it since
                    self._sync_file(path)

    def _sync_file(self, path: Path) -> None:
        mtime = path.stat().st_mtime_ns
        if self._mtimes.get(path.name) == mtime:
            return
        if path.suffix == CHECKPOINT_SUFFIX:
            self._upload_checkpoint(path)
        else:
            self._upload_metrics(path)
        self._mtimes[path.name] = mtime

    def _run(self) -> None:
        while not self._stop.wait(self.interval_s):
            self._try_sync()
        if self._interrupted:
            self._try_sync()

    def _try_sync(self) -> None:
        try:
            self.sync_now()
        except (PcamError, OSError) as error:
            if not self._has_warned:
                log.warning("%s. Training continues; its checkpoints are on this disk only", error)
            self._has_warned = True

    def _upload_metrics(self, path: Path) -> None:
        lines, newline, _ = path.read_bytes().rpartition(b"\n")
        self.run.store.write(self._key(path.name), lines + newline)

    def _upload_checkpoint(self, path: Path) -> None:
        link = path.with_name(f".{path.name}.sync")  # keeps this file's content while training replaces it
        link_or_copy(path, link)
        try:
            metrics = sorted(self.folder.glob(f"*{METRICS_SUFFIX}"))
            for file in metrics:  # after the link, so that no line before this checkpoint is missing
                self._upload_metrics(file)
            name = f"{path.stem}-{link.stat().st_mtime_ns}{path.suffix}"
            digest = self.run.store.upload(self._key(f"{LIVE_DIR}/{name}"), link)
            self._uploaded[path.name] = name, FileRecord(size=link.stat().st_size, sha256=digest)
        finally:
            link.unlink(missing_ok=True)
        if epoch_of(path.name) is None:
            self._checkpoint = path.name
        self._write_live([file.name for file in metrics])

    def _write_live(self, metrics: list[str]) -> None:
        """Write live.json, and delete the checkpoints that it no longer names."""
        epochs = {name for name in self._uploaded if epoch_of(name) is not None and (self.folder / name).exists()}
        current = epochs | {self._checkpoint}
        self._uploaded = {name: upload for name, upload in self._uploaded.items() if name in current}
        files = dict(self._uploaded.values())
        live = LiveState(checkpoint=self._checkpoint, metrics=tuple(metrics), files=files)
        self.run.store.write(self._key(f"{LIVE_DIR}/{LIVE_FILE}"), json_bytes(live.model_dump(mode="json")))
        delete_live(self.run, self.step, keep={*files, LIVE_FILE})

    def _key(self, name: str) -> str:
        return f"runs/{self.run.name}/{self.step}/{name}"


def read_live(run: RunStore, step: str) -> LiveState:
    """What a running step has in the store. Raises NotFound, or ModelError where the record is damaged."""
    key = f"runs/{run.name}/{step}/{LIVE_DIR}/{LIVE_FILE}"
    return parse_record(LiveState, run.store.read(key), f"{run.store.uri}/{key}")


def restore_checkpoint(run: RunStore, step: str, folder: Path) -> bool:
    """Download the last checkpoint of an interrupted step, with its metrics and the weights of single epochs.

    Returns:
        False where the folder has a checkpoint already, and where the store has none or a damaged one.
    """
    prefix = f"runs/{run.name}/{step}"
    try:
        live = read_live(run, step)
        names = {local_name(name): name for name in live.files}
        if live.checkpoint not in names or (folder / live.checkpoint).exists():
            return False
        for file in live.metrics:
            write_atomic(folder / Path(file).name, run.store.read(f"{prefix}/{Path(file).name}"))
        _fetch_live(run, step, names.pop(live.checkpoint), live, folder)
    except (NotFound, ModelError):
        return False
    for name in names.values():
        with suppress(NotFound, ModelError):  # training resumes without the weights of single epochs too
            _fetch_live(run, step, name, live, folder)
    return True


def _fetch_live(run: RunStore, step: str, name: str, live: LiveState, folder: Path) -> None:
    key = f"runs/{run.name}/{step}/{LIVE_DIR}/{name}"
    fetch_verified(run.store, key, folder / local_name(name), live.files[name])


def local_name(name: str) -> str:
    """The file name of an object below `live/`: of `latest-123.safetensors` it is `latest.safetensors`."""
    return Path(name).name.rpartition("-")[0] + CHECKPOINT_SUFFIX


def delete_live(run: RunStore, step: str, keep: Collection[str] = ()) -> None:
    """Delete what a step has below `live/`, except the names in `keep`."""
    prefix = f"runs/{run.name}/{step}/{LIVE_DIR}/"
    for entry in list(run.store.entries(prefix)):
        if entry.key.removeprefix(prefix) not in keep:
            run.store.delete(entry.key)
