"""A run's own room on this machine, and the rule that a step is done once."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pcam_model.core.errors import ConfigError
from pcam_model.core.files import disk_space_guard, write_atomic
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.capabilities import probe
from pcam_model.registry.factory import open_store
from pcam_model.registry.live_sync import LiveSync, forget, restore
from pcam_model.registry.manifest import PublishedRun, json_bytes, list_files
from pcam_model.registry.retry import retry_while_unavailable
from pcam_model.registry.runs import RunStore

PUBLISH_TIMEOUT_S = 600.0  # seconds that the end of a run waits for a store that is away
WAITING = ".step.json"  # the record of a step that is not in the store yet
HERE = "{here}"  # stands for the step's folder in a record that is kept

R = TypeVar("R", bound=Record)


class Workspace(Record):
    """Which run this is, where it is kept and where it works."""

    run: str
    store: str
    """The store's address."""
    folder: str
    """Scratch of this run on this machine."""

    @property
    def run_store(self) -> RunStore:
        """The run's rooms in the store."""
        return RunStore(open_store(self.store), self.run)

    def exists_in_store(self) -> bool:
        """Whether the store knows the run; a store that cannot be read or written is found out first."""
        store = self.run_store.store
        probe(store)
        return store.stat(f"runs/{self.run}/config.json") is not None

    def step_dir(self, step: str) -> Path:
        """The step's folder on this machine."""
        return Path(self.folder) / step

    def run_step(self, step: str, kind: type[R], make: Callable[[Path], R], inputs: Mapping[str, Any]) -> R:
        """The step's record: from the store where the step is done, else made now and committed.

        Args:
            step: its path under the run, as in `lr/frozen`.
            kind: the class of the record.
            make: does the work in the folder it is given, which keeps what an interrupted try left there.
            inputs: what the step rests on; a step that was done on something else is refused.

        Raises:
            ConfigError: the step is done, but rested on something else.
        """
        done = self._done(step)
        given = json.loads(json.dumps(dict(inputs), default=str))
        if done is None:
            return self._make(step, make, given)
        changed = [key for key in given if done["inputs"].get(key) != given[key]]
        if changed:
            raise ConfigError(
                f"run {self.run!r} has done its step {step} on {changed[0]} {done['inputs'].get(changed[0])}, "
                f"which is now {given[changed[0]]}; choose another run name"
            )
        if not self._waiting(step).exists():
            self.run_store.fetch(step, self.step_dir(step))
        text = json.dumps(done["made"]).replace(HERE, json.dumps(str(self.step_dir(step)))[1:-1])
        print(f"{step}: already done in run {self.run}")
        return kind.model_validate_json(text)

    def _make(self, step: str, make: Callable[[Path], R], inputs: dict[str, Any]) -> R:
        step_dir = self.step_dir(step)
        with disk_space_guard(step_dir):
            step_dir.mkdir(parents=True, exist_ok=True)
            self._restore(step)
            with LiveSync(self.run_store, step, step_dir):
                made = make(step_dir)
            text = made.model_dump_json().replace(json.dumps(str(step_dir))[1:-1], HERE)
            write_atomic(self._waiting(step), json_bytes({"made": json.loads(text), "inputs": inputs}))
        try:
            self._send(step)
        except StoreUnavailable as error:
            print(f"{error}. Going on: {step} is kept in {step_dir}, and goes to the store when the run is published")
        return made

    def publish(self, timeout_s: float = PUBLISH_TIMEOUT_S) -> PublishedRun:
        """Send what the store has not got yet, and the files beside the steps; then the manifest, last.

        Args:
            patience: seconds to wait for a store that is away.

        Raises:
            StoreUnavailable: it did not come back; everything stays on this disk.
        """
        try:
            return retry_while_unavailable(self._publish, timeout_s)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"{error}. All of run {self.run} is kept in {self.folder}: `pcam publish {self.run}` finishes it"
            ) from error

    def _publish(self) -> PublishedRun:
        for waiting in sorted(Path(self.folder).rglob(WAITING)):
            self._send(waiting.parent.relative_to(self.folder).as_posix())
        return self.run_store.publish(files=list_files(Path(self.folder), deep=False))

    def _send(self, step: str) -> None:
        """Commit a step; until then its record waits in its folder."""
        self.run_store.commit(step, self.step_dir(step), json.loads(self._waiting(step).read_bytes()))
        self._waiting(step).unlink()
        forget(self.run_store, step)

    def _restore(self, step: str) -> None:
        """Go on from another machine's last checkpoint, where this one has nothing."""
        try:
            if restore(self.run_store, step, self.step_dir(step)):
                print(f"{step}: going on from the last checkpoint in the store")
        except StoreUnavailable as error:
            print(f"{error}. Going on: what this machine has of run {self.run} is used")

    def _done(self, step: str) -> dict[str, Any] | None:
        """The record of a step that is done: in the store, or on this disk while the store is away."""
        waiting = self._waiting(step)
        try:
            record = self.run_store.step_record(step)
        except StoreUnavailable as error:
            print(f"{error}. Going on: what this machine has of run {self.run} is used")
            record = None
        if record is None and waiting.exists():
            record = dict(json.loads(waiting.read_bytes()))
        return record

    def _waiting(self, step: str) -> Path:
        return self.step_dir(step) / WAITING

    def cleanup(self) -> None:
        """Remove the scratch: everything that lasts is in the store."""
        shutil.rmtree(self.folder, ignore_errors=True)
