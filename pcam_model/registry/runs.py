"""A run in the store: its configuration, its finished steps, and the manifest that publishes it."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from pcam_model.core.errors import ConfigError, ModelError, PcamError, StoreError
from pcam_model.core.files import sha256
from pcam_model.core.locks import file_lock
from pcam_model.core.parsing import parse_record
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import Conflict, NotFound, Store, StoreUnavailable
from pcam_model.registry.manifest import (
    RUNS,
    FileRecord,
    Files,
    Manifest,
    PublishedRun,
    StepManifest,
    check_sizes,
    json_bytes,
    list_files,
    object_sizes,
    read_manifest,
    sha256_hex,
    utc_now,
)
from pcam_model.registry.run_names import changed_files, differences, validate_run_name
from pcam_model.registry.transfer import fetch_files, send_files

__all__ = ["PublishedRun", "RunStore", "RunSummary", "list_runs", "validate_run_name"]


class RunSummary(Record):
    """Name, finished steps and publication of a run, for a list of runs."""

    name: str
    steps: tuple[str, ...]
    """The finished steps."""
    published_at: str = ""
    """ISO 8601, UTC; empty where it is not published."""
    digest: str = ""
    """The SHA-256 of its manifest; empty where it is not published."""
    damaged: str = ""
    """Why its manifest or its name cannot be used; empty where they can."""


class RunConfig(Record):
    """The content of config.json: what decides a run's result, and where it was begun."""

    config: dict[str, Any]
    environment: dict[str, Any] = Field(default_factory=dict)


class RunStore:
    """The objects of one run in a store."""

    def __init__(self, store: Store, name: str, namespace: str = RUNS) -> None:
        """`namespace` is the first part of the keys, `runs` or `scores`. Raises ConfigError for an invalid name."""
        self.store = store
        self.name = validate_run_name(name)
        self.namespace = namespace

    @property
    def uri(self) -> str:
        """The run's address."""
        return f"{self.store.uri}/{self.namespace}/{self.name}"

    def reserve_run(self, config: dict[str, Any], environment: dict[str, Any] | None = None) -> None:
        """Store the run's configuration, or compare it with the stored one.

        Args:
            config: the keys that decide the result.
            environment: versions and device, for information; the first one stays.

        Raises:
            ConfigError: the store has a run of this name with another configuration; the message names the keys.
        """
        content = json_bytes({"config": config, "environment": environment or {}})
        try:
            self.store.write(self._key("config.json"), content, only_if_absent=True)
        except Conflict:
            changes = list(differences(self.config().config, json.loads(json_bytes(config))))
            if changes:
                raise ConfigError(
                    f"run {self.name!r} was started with another config: {'; '.join(changes)}; choose another run "
                    "name, or give the same config"
                ) from None

    def config(self) -> RunConfig:
        """The stored configuration. Raises NotFound, or ModelError where it is damaged."""
        key = self._key("config.json")
        return parse_record(RunConfig, self.store.read(key), f"{self.store.uri}/{key}")

    def step_record(self, step: str) -> dict[str, Any] | None:
        """The record of a step; None where it is not finished, that is without a record or with files missing.

        Raises:
            ModelError: it is damaged.
        """
        manifest = self._step_manifest(step)
        return None if manifest is None else manifest.record

    def commit(self, step: str, folder: Path, record: dict[str, Any]) -> None:
        """Upload the files of a step, then the record that makes it finished.

        Files that the store has already are not sent again, also where an earlier try was interrupted.

        Raises:
            StoreError: the run is published, and had another content.
        """
        paths = list_files(folder)
        before = None
        with suppress(ModelError):  # a damaged record is replaced
            before = self._step_manifest(step)
        if before is not None and before == _step_manifest(record, _describe_files(paths)):
            return
        if self.find_published() is not None:
            raise self._immutable_error(f"step {step!r} differs")
        sent = self._send({f"{step}/{name}": path for name, path in paths.items()})
        manifest = _step_manifest(record, {name.removeprefix(f"{step}/"): file for name, file in sent.items()})
        self.store.write(self._key(f"{step}/step.json"), json_bytes(manifest.model_dump(mode="json")))

    def fetch(self, step: str, folder: Path) -> dict[str, Any]:
        """Download the files of a step that the folder does not have, verified; returns the step's record.

        Raises:
            NotFound: the step is not finished.
            ModelError: a file differs from its record.
        """
        manifest = self._step_manifest(step)
        if manifest is None:
            raise NotFound(f"{self.uri}: step {step!r} is not finished; run the flow again under this run's name")
        with write_guard(folder), file_lock(folder / ".lock"):
            fetch_files(self.store, self._key(f"{step}/"), manifest.files, folder)
        return manifest.record

    def publish(self, files: Mapping[str, Path] | None = None, steps: Iterable[str] | None = None) -> PublishedRun:
        """Write the manifest; from then on the run is published and does not change.

        Args:
            files: files beside the steps, by their path under the run; uploaded first.
            steps: the steps that belong to it; None: all finished ones.

        Raises:
            StoreError: a step is not finished, or the run is published with other content.
        """
        names = self.steps() if steps is None else steps
        manifests = {step: self._step_manifest(step) for step in names}
        unfinished = [step for step, manifest in manifests.items() if manifest is None]
        if unfinished or not (manifests or files):
            raise StoreError(
                f"{self.uri} cannot be published, unfinished: {', '.join(unfinished) or 'all steps'}; run the flow "
                "again under this run's name"
            )
        finished = {step: manifest for step, manifest in manifests.items() if manifest is not None}
        content = self._contents(finished) | _describe_files(files or {})
        mpp = _model_mpp(finished.get("model"))
        existing = self.find_published() or self._write_manifest(content, files or {}, mpp)
        if existing[0].files != content:
            raise self._immutable_error(", ".join(changed_files(existing[0].files, content)[:5]) + " would change")
        return existing[1]

    def find_published(self) -> tuple[Manifest, PublishedRun] | None:
        """The run's manifest and identity, or None where it is not published."""
        if self.store.stat(self._key("manifest.json")) is None:
            return None
        return read_manifest(self.store, self.name, namespace=self.namespace)

    def steps(self) -> list[str]:
        """The names of the steps that have a record."""
        prefix = self._key("")
        keys = (entry.key.removeprefix(prefix) for entry in self.store.entries(prefix))
        return [key.removesuffix("/step.json") for key in keys if key.endswith("/step.json")]

    def _write_manifest(
        self, content: Files, files: Mapping[str, Path], mpp: float | None
    ) -> tuple[Manifest, PublishedRun]:
        """Upload the files beside the steps, write the manifest, and read it back: another writer may be first."""
        self._send(files)
        check_sizes(self.store, self.name, content, self.namespace)
        manifest = Manifest(run=self.name, published_at=utc_now(), mpp=mpp, files=content)
        with suppress(Conflict):
            self.store.write(
                self._key("manifest.json"), json_bytes(manifest.model_dump(mode="json")), only_if_absent=True
            )
        return read_manifest(self.store, self.name, namespace=self.namespace)

    def _key(self, path: str) -> str:
        return f"{self.namespace}/{self.name}/{path}"

    def _step_manifest(self, step: str) -> StepManifest | None:
        """The manifest of a finished step, whose files are there in the recorded sizes; else None."""
        key = self._key(f"{step}/step.json")
        try:
            manifest = parse_record(StepManifest, self.store.read(key), f"{self.store.uri}/{key}")
        except NotFound:
            return None
        sizes = object_sizes(self.store, self._key(f"{step}/"))
        return manifest if all(sizes.get(name) == file.size for name, file in manifest.files.items()) else None

    def _contents(self, manifests: Mapping[str, StepManifest]) -> Files:
        """The files of the steps, their records and the config, by their path under the run."""
        contents = {
            f"{step}/{name}": file for step, manifest in manifests.items() for name, file in manifest.files.items()
        }
        for name in ["config.json", *(f"{step}/step.json" for step in manifests)]:
            with suppress(NotFound):
                content = self.store.read(self._key(name))
                contents[name] = FileRecord(size=len(content), sha256=sha256_hex(content))
        return contents

    def _send(self, paths: Mapping[str, Path]) -> Files:
        """Upload files by their path under the run."""
        return send_files(self.store, self._key(""), paths)

    def _immutable_error(self, difference: str) -> StoreError:
        return StoreError(f"{self.uri} is published and does not change ({difference}); choose another run name")


def list_runs(store: Store) -> Iterator[RunSummary]:
    """All runs of a store, by name; a run whose manifest is damaged says so, and the others are listed as before."""
    for name in store.folders("runs/"):
        try:
            run = RunStore(store, name)
            steps = tuple(run.steps())
        except ConfigError as error:
            yield RunSummary(name=name, steps=(), damaged=str(error))
            continue
        try:
            published = run.find_published()
        except StoreUnavailable:
            raise
        except PcamError as error:
            yield RunSummary(name=name, steps=steps, damaged=str(error))
            continue
        yield RunSummary(
            name=name,
            steps=steps,
            published_at=published[0].published_at if published else "",
            digest=published[1].digest if published else "",
        )


def _describe_files(paths: Mapping[str, Path]) -> Files:
    return {name: FileRecord(size=path.stat().st_size, sha256=sha256(path)) for name, path in paths.items()}


def _model_mpp(step: StepManifest | None) -> float | None:
    """The microns per pixel in the record of the step `model`."""
    result = step.record.get("result") if step else None
    return result.get("mpp") if isinstance(result, dict) else None


def _step_manifest(record: dict[str, Any], files: Files) -> StepManifest:
    return StepManifest(record=json.loads(json_bytes(record)), files=files)
