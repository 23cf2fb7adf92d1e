"""A run's scratch folder on this machine, and the rule that a finished step is not repeated."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from pcam_model.core.errors import ConfigError, ModelError
from pcam_model.core.files import write_atomic
from pcam_model.core.log import log
from pcam_model.core.parsing import parse_record, parse_value, read_record
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.capabilities import probe
from pcam_model.registry.factory import open_store
from pcam_model.registry.live_sync import LiveSync, delete_live, restore_checkpoint
from pcam_model.registry.manifest import PublishedRun, json_bytes, list_files
from pcam_model.registry.retention import protected_while_published
from pcam_model.registry.retry import retry_while_unavailable
from pcam_model.registry.run_lock import run_lock
from pcam_model.registry.runs import RunConfig, RunStore

PUBLISH_TIMEOUT_S = 600.0
PENDING_FILE = ".step.json"  # the record of a step that is not in the store yet
FOLDER_PLACEHOLDER = "{here}"  # the step's folder in a stored record

DONE_FILE, CONFIG_FILE = ".done.json", ".config.json"  # of a committed step, and of the run: the store may lose them
R = TypeVar("R", bound=Record)


class StepRecord(Record):
    """What a finished step left: its result, with a placeholder for its folder, and what it was made from."""

    result: dict[str, Any]
    inputs: dict[str, Any]


class Workspace(Record):
    """A run, its store, and its scratch folder."""

    run: str
    store: str
    """The store's address."""
    folder: str
    """The run's scratch folder on this machine."""

    @property
    def run_store(self) -> RunStore:
        """The run in the store."""
        return RunStore(open_store(self.store), self.run)

    def exists_in_store(self) -> bool:
        """Whether the store has the run. Raises StoreError where it cannot be read from or written to."""
        store = self.run_store.store
        probe(store)
        return store.stat(f"runs/{self.run}/config.json") is not None

    def step_dir(self, step: str) -> Path:
        """The step's folder on this machine."""
        return Path(self.folder) / step

    def run_step(self, step: str, record_type: type[R], make: Callable[[Path], R], inputs: Mapping[str, Any]) -> R:
        """The result of a step: from the store where it is finished, else made now and committed.

        Args:
            step: its path under the run, as in `lr/frozen`.
            record_type: the class of the result.
            make: does the work in the folder it is given, which still has what an interrupted try left there.
            inputs: what the result depends on.

        A damaged record is logged, and the step is done again.

        Raises:
            ConfigError: the step is finished, but was made from other inputs.
            ModelError: its record is damaged, and the run is published.
        """
        json_inputs = json.loads(json.dumps(dict(inputs), default=str))
        try:
            record = self._find_record(step)
            result = None if record is None else self._parse_result(step, record, record_type)
        except ModelError as error:
            self._require_unpublished(error)
            log.warning("%s. The step %s is done again", error, step)
            record = result = None
        if record is None or result is None:
            return self._make(step, make, json_inputs)
        self._compare_inputs(step, record.inputs, json_inputs)
        if not self._pending(step).exists():
            self.run_store.fetch(step, self.step_dir(step))
            write_atomic(self.step_dir(step) / DONE_FILE, json_bytes(record.model_dump()))
        log.info("%s: already done in run %s", step, self.run)
        return result

    def reserve(self, config: dict[str, Any], environment: dict[str, Any] | None = None) -> None:
        """Write the run's configuration to the store; see `RunStore.reserve_run`."""
        write_atomic(Path(self.folder) / CONFIG_FILE, json_bytes({"config": config, "environment": environment or {}}))
        self.run_store.reserve_run(config, environment)

    def publish(self, timeout_s: float = PUBLISH_TIMEOUT_S) -> PublishedRun:
        """Upload the steps that the store does not have yet, and the files beside them; then publish the run.

        Args:
            timeout_s: seconds to wait for a store that is unavailable.

        Raises:
            StoreUnavailable: it is still unavailable; everything stays on this disk.
        """
        try:
            return retry_while_unavailable(self._publish, timeout_s)
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"{error}. All of run {self.run} is in {self.folder}: `pcam publish {self.run}` publishes it"
            ) from error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run on this machine, and remove what killed writers left of it.

        Raises:
            BusyError: another process holds it; the message names it.
        """
        with run_lock(self.run, Path(self.folder)):
            with suppress(StoreUnavailable):
                self.run_store.store.sweep(f"runs/{self.run}/")
            yield

    def cleanup(self) -> None:
        """Remove the scratch folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _compare_inputs(self, step: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = [key for key in now if before.get(key) != now[key]]
        if changed:
            key = changed[0]
            raise ConfigError(
                f"run {self.run!r} has made its step {step} from {key} {before.get(key)}, which is now {now[key]}; "
                "choose another run name"
            )

    def _make(self, step: str, make: Callable[[Path], R], inputs: dict[str, Any]) -> R:
        folder = self.step_dir(step)
        with write_guard(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._restore_checkpoint(step)
            with LiveSync(self.run_store, step, folder):
                result = make(folder)
            text = result.model_dump_json().replace(_json_escape(folder), FOLDER_PLACEHOLDER)
            write_atomic(self._pending(step), json_bytes({"result": json.loads(text), "inputs": inputs}))
        try:
            self._commit(step)
        except StoreUnavailable as error:
            log.warning("%s. %s stays in %s until the run is published", error, step, folder)
        return result

    def _publish(self) -> PublishedRun:
        for pending in sorted(Path(self.folder).rglob(PENDING_FILE)):
            self._commit(pending.parent.relative_to(self.folder).as_posix())
        beside = list_files(Path(self.folder), recursive=False)
        if self.run_store.find_published() is not None:
            return self.run_store.publish(beside)
        with protected_while_published(self.run_store.store, self.run):
            self._restore_lost()
            return self.run_store.publish(beside)

    def _commit(self, step: str) -> None:
        """Upload a step whose record is pending."""
        record = read_record(
            StepRecord, self._pending(step), remedy=f"run the flow again as {self.run}, which redoes it"
        )
        self.run_store.commit(step, self.step_dir(step), record.model_dump())
        self._pending(step).replace(self.step_dir(step) / DONE_FILE)
        delete_live(self.run_store, step)

    def _restore_lost(self) -> None:
        """Write again what the store has lost of this run, as where `pcam prune` deleted it in mid run."""
        if (config := Path(self.folder) / CONFIG_FILE).exists():
            stored = read_record(RunConfig, config, remedy=f"run the flow again as {self.run}, which writes it again")
            self.run_store.reserve_run(stored.config, stored.environment)
        for done in sorted(Path(self.folder).rglob(DONE_FILE)):
            step = done.parent.relative_to(self.folder).as_posix()
            if self.run_store.step_record(step) is None:
                log.warning("%s: no longer in the store, uploaded again", step)
                self.run_store.commit(step, self.step_dir(step), read_record(StepRecord, done).model_dump())

    def _restore_checkpoint(self, step: str) -> None:
        """Download the last checkpoint of another machine, where this one has none."""
        try:
            if restore_checkpoint(self.run_store, step, self.step_dir(step)):
                log.info("%s: resuming from the last checkpoint in the store", step)
        except StoreUnavailable as error:
            self._warn_unavailable(error)

    def _find_record(self, step: str) -> StepRecord | None:
        """The record of a finished step, in the store or pending on this disk; else None. Raises ModelError."""
        pending = self._pending(step)
        record = None
        try:
            record = self.run_store.step_record(step)
        except StoreUnavailable as error:
            self._warn_unavailable(error)
        if record is not None:
            return parse_value(StepRecord, record, f"{self.run_store.uri}/{step}/step.json")
        return read_record(StepRecord, pending) if pending.exists() else None

    def _parse_result(self, step: str, record: StepRecord, record_type: type[R]) -> R:
        """The result with the step's folder on this machine. Raises ModelError."""
        text = json.dumps(record.result).replace(FOLDER_PLACEHOLDER, _json_escape(self.step_dir(step)))
        return parse_record(record_type, text, f"the record of step {step} of run {self.run}")

    def _require_unpublished(self, error: ModelError) -> None:
        """Raise the error of a damaged record where its run is published, and so does not change."""
        with suppress(StoreUnavailable):
            if self.run_store.find_published() is not None:
                raise error

    def _warn_unavailable(self, error: StoreUnavailable) -> None:
        log.warning("%s. Continuing with what this machine has of run %s", error, self.run)

    def _pending(self, step: str) -> Path:
        return self.step_dir(step) / PENDING_FILE


def _json_escape(path: Path) -> str:
    """The path as it stands within a JSON string."""
    return json.dumps(str(path))[1:-1]
