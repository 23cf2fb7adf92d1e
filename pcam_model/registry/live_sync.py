"""What a running step has so far goes to the store beside the work, and never holds it up."""

import json
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pcam_model.core.checkpoint_names import epoch_of
from pcam_model.core.errors import ModelError, PcamError
from pcam_model.core.files import write_atomic
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.manifest import FileRecord, Step, json_bytes, parse_step
from pcam_model.registry.runs import RunStore
from pcam_model.registry.transfer import fetch_verified

EVERY = 15.0  # seconds between two looks
PATIENCE = 5.0  # seconds that the end of a step waits for what is under way
LAST_PATIENCE = 60.0  # seconds that an interrupted step waits for its last checkpoint to be sent
STATE, LINES, LIVE = ".safetensors", ".jsonl", "live"


class LiveSync:
    """While it is entered, a thread sends each new checkpoint and all whole lines of each diary in a folder.

    Left by an interruption (what is no `Exception`), it sends what is new once more, since nobody may come back here.

    Lines go to `runs/<run>/<step>/<name>`, where a watcher elsewhere may read them; a checkpoint goes under a name of
    its own below `live/`, and `live/live.json` points to it once it is whole. The same becomes of the weights of single
    epochs for as long as they are in the folder: who trains decides which those are. Files have to be replaced, not
    rewritten.
    """

    def __init__(self, run: RunStore, step: str, folder: Path, every: float = EVERY) -> None:
        """`folder` is where the step works; `every` is in seconds."""
        self.run, self.step, self.folder, self.every = run, step, folder, every
        self._seen: dict[str, int] = {}
        self._sent: dict[str, tuple[str, FileRecord]] = {}
        self._newest = ""
        self._said = self._interrupted = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"beside {step}", daemon=True)

    def __enter__(self) -> "LiveSync":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupted = kind is not None and not issubclass(kind, Exception)
        self._over.set()
        self._thread.join(LAST_PATIENCE if self._interrupted else PATIENCE)

    def look(self) -> None:
        """Send what is new since the last look; what training goes on from before single epochs."""
        for path in sorted(self.folder.glob("*"), key=lambda path: (epoch_of(path.name) is not None, path.name)):
            if path.suffix in (STATE, LINES) and not path.name.startswith("."):
                with suppress(FileNotFoundError):  # training has removed it since
                    stamp = path.stat().st_mtime_ns
                    if self._seen.get(path.name) != stamp:
                        (self._send_state if path.suffix == STATE else self._send_lines)(path)
                        self._seen[path.name] = stamp

    def _watch(self) -> None:
        while not self._over.wait(self.every):
            self._try()
        if self._interrupted:
            self._try()

    def _try(self) -> None:
        try:
            self.look()
        except (PcamError, OSError) as error:
            if not self._said:
                print(f"{error}. Training goes on; what it has so far is on this disk only")
            self._said = True

    def _send_lines(self, path: Path) -> None:
        whole = path.read_bytes().rpartition(b"\n")
        self.run.store.write(self._key(path.name), whole[0] + whole[1])

    def _send_state(self, path: Path) -> None:
        """A link keeps the file as it is now, whatever replaces it meanwhile."""
        still = path.with_name(f".{path.name}.beside")
        still.unlink(missing_ok=True)
        os.link(path, still)
        try:
            diaries = sorted(self.folder.glob(f"*{LINES}"))
            for diary in diaries:  # after the link, so that no line is missing of what led to this checkpoint
                self._send_lines(diary)
            name = f"{path.stem}-{still.stat().st_mtime_ns}{path.suffix}"
            digest = self.run.store.upload(self._key(f"{LIVE}/{name}"), still)
            self._sent[path.name] = name, FileRecord(size=still.stat().st_size, sha256=digest)
        finally:
            still.unlink(missing_ok=True)
        if epoch_of(path.name) is None:
            self._newest = path.name
        self._point([diary.name for diary in diaries])

    def _point(self, diaries: list[str]) -> None:
        """Say what may be gone on from and which epochs there are; the rest goes."""
        epochs = {name for name in self._sent if epoch_of(name) is not None and (self.folder / name).exists()}
        self._sent = {name: sent for name, sent in self._sent.items() if name in epochs | {self._newest}}
        files = dict(self._sent.values())
        live = Step(record={"name": self._newest, "diaries": diaries}, files=files)
        self.run.store.write(self._key(f"{LIVE}/live.json"), json_bytes(live.model_dump(mode="json")))
        forget(self.run, self.step, keep={*files, "live.json"})

    def _key(self, name: str) -> str:
        return f"runs/{self.run.name}/{self.step}/{name}"


def restore(run: RunStore, step: str, folder: Path) -> bool:
    """Fetch the last checkpoint of a step that another machine left unfinished; False where there is none to have."""
    prefix = f"runs/{run.name}/{step}/{LIVE}/"
    try:
        live = read_live(run, step)
        target = folder / Path(str(live.record["name"])).name
        if target.exists():
            return False
        for diary in (Path(str(name)).name for name in live.record["diaries"]):
            write_atomic(folder / diary, run.store.read(f"runs/{run.name}/{step}/{diary}"))
        for name in sorted(live.files, key=lambda name: local_name(name) != target.name):
            with suppress(
                *(ModelError, NotFound) if target.exists() else ()
            ):  # a single epoch's weights may be missing
                fetch_verified(run.store, prefix + name, folder / local_name(name), live.files[name])
        return target.exists()
    except (NotFound, ModelError, KeyError, json.JSONDecodeError):
        return False


def read_live(run: RunStore, step: str) -> Step:
    """What a step that is under way has in the store, by its names below `live/`; `NotFound` where that is nothing."""
    return parse_step(run.store.read(f"runs/{run.name}/{step}/{LIVE}/live.json"), run.store.uri)


def local_name(name: str) -> str:
    """What a file below `live/` is called where it is made: `latest-123.safetensors` is `latest.safetensors`."""
    return Path(name).name.rpartition("-")[0] + STATE


def forget(run: RunStore, step: str, keep: Collection[str] = ()) -> None:
    """Remove what was sent beside a step, but for these."""
    prefix = f"runs/{run.name}/{step}/{LIVE}/"
    for entry in list(run.store.entries(prefix)):
        if entry.key.removeprefix(prefix) not in keep:
            run.store.delete(entry.key)
