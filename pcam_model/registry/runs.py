"""A run in the store: its config, its finished steps, and the manifest that makes it a published one."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pcam_model.core.errors import ConfigError, StoreError
from pcam_model.core.files import sha256
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import Conflict, NotFound, Store
from pcam_model.registry.manifest import (
    RUNS,
    FileRecord,
    Files,
    Manifest,
    PublishedRun,
    Step,
    check_sizes,
    json_bytes,
    list_files,
    now,
    parse_step,
    read_manifest,
    sha256_hex,
    sizes,
)
from pcam_model.registry.run_names import changed, differences, validate_run_name
from pcam_model.registry.transfer import exclusive_dir, fetch_files, send_files

__all__ = ["PublishedRun", "RunStore", "RunSummary", "list_runs", "validate_run_name"]


class RunSummary(Record):
    """A run as a list shows it."""

    name: str
    steps: tuple[str, ...]
    """The steps that are finished."""
    published_at: str = ""
    """When it was published (ISO 8601, UTC); empty where it is not."""
    digest: str = ""
    """The SHA-256 of its manifest; empty where it is not published."""


class RunStore:
    """One run's rooms in a store."""

    def __init__(self, store: Store, name: str, namespace: str = RUNS) -> None:
        """`name`: small letters, digits, `.`, `_` and `-`, up to 100; else `ConfigError`."""
        self.store = store
        self.name = validate_run_name(name)
        self.namespace = namespace

    @property
    def uri(self) -> str:
        """The run's address."""
        return f"{self.store.uri}/{self.namespace}/{self.name}"

    def reserve_run(self, config: dict[str, Any], environment: dict[str, Any] | None = None) -> None:
        """Write down what was asked, or see that it is what was asked before; else `ConfigError` names what differs.

        Args:
            config: What decides the result; compared key by key.
            about: What is only worth knowing (versions, device); kept from the first time.
        """
        content = json_bytes({"config": config, "environment": environment or {}})
        try:
            self.store.write(self._key("config.json"), content, only_if_absent=True)
        except Conflict:
            before = json.loads(self.store.read(self._key("config.json")))["config"]
            different = list(differences(before, json.loads(json_bytes(config))))
            if different:
                raise ConfigError(
                    f"run {self.name!r} was started with another config: {'; '.join(different)}; "
                    "choose another run name, or give the same config"
                ) from None

    def step_record(self, step: str) -> dict[str, Any] | None:
        """What a finished step says, or None: a step is done when its record and all its files are there."""
        done = self._step(step)
        return None if done is None else done.record

    def commit(self, step: str, folder: Path, record: dict[str, Any]) -> None:
        """Store every file of the folder under the step, then the record that makes the step done.

        What the store already has is not sent again, also where an earlier try was broken off. A published run is not
        changed: other content than the published one raises `StoreError`.
        """
        paths = list_files(folder)
        before = self._step(step)
        if before is not None and before == _made(record, {name: _described(path) for name, path in paths.items()}):
            return
        if self.find_published() is not None:
            raise self._immutable(f"step {step!r} is different")
        files = self._send({f"{step}/{name}": path for name, path in paths.items()})
        made = _made(record, {name.removeprefix(f"{step}/"): file for name, file in files.items()})
        self.store.write(self._key(f"{step}/step.json"), json_bytes(made.model_dump(mode="json")))

    def fetch(self, step: str, folder: Path) -> dict[str, Any]:
        """Download what is missing or different in the folder, verified; returns the step's record.

        Raises:
            NotFound: The step is not done.
            ModelError: A file that came is not what the record says.
        """
        done = self._step(step)
        if done is None:
            raise NotFound(f"{self.uri}: step {step!r} is not finished; run the flow again under this run's name")
        with exclusive_dir(folder):
            fetch_files(self.store, self._key(f"{step}/"), done.files, folder)
        return done.record

    def publish(self, files: Mapping[str, Path] | None = None, steps: Iterable[str] | None = None) -> PublishedRun:
        """Write the manifest, last: from then on the run is published, and does not change.

        Args:
            files: Files beside the steps, by their path under the run; stored first.
            steps: The steps that belong to it; all finished ones by default.

        Raises:
            StoreError: The run is already published with other content.
        """
        chosen = {step: self._step(step) for step in (self.steps() if steps is None else steps)}
        unfinished = [step for step, done in chosen.items() if done is None]
        if unfinished or not (chosen or files):
            raise StoreError(f"{self.uri}: cannot be published, unfinished: {', '.join(unfinished) or 'all steps'}")
        loose = {name: _described(path) for name, path in (files or {}).items()}
        content = self._contents({step: done for step, done in chosen.items() if done is not None}) | loose
        existing = self.find_published()
        if existing is None:
            self._send(files or {})
            check_sizes(self.store, self.name, content, self.namespace)
            manifest = Manifest(run=self.name, published=now(), files=content)
            try:
                self.store.write(
                    self._key("manifest.json"), json_bytes(manifest.model_dump(mode="json")), only_if_absent=True
                )
            except Conflict:
                pass
            existing = read_manifest(self.store, self.name, namespace=self.namespace)
        if existing[0].files != content:
            raise self._immutable(", ".join(changed(existing[0].files, content)[:5]) + " would change")
        return existing[1]

    def find_published(self) -> tuple[Manifest, PublishedRun] | None:
        """The run's manifest and address, or None where it is not published."""
        if self.store.stat(self._key("manifest.json")) is None:
            return None
        return read_manifest(self.store, self.name, namespace=self.namespace)

    def steps(self) -> list[str]:
        """The names of the steps that have a record."""
        prefix = self._key("")
        keys = (entry.key.removeprefix(prefix) for entry in self.store.entries(prefix))
        return [key.removesuffix("/step.json") for key in keys if key.endswith("/step.json")]

    def _key(self, path: str) -> str:
        return f"{self.namespace}/{self.name}/{path}"

    def _step(self, step: str) -> Step | None:
        key = self._key(f"{step}/step.json")
        try:
            done = parse_step(self.store.read(key), f"{self.store.uri}/{key}")
        except NotFound:
            return None
        there = sizes(self.store, self._key(f"{step}/"))
        return done if all(there.get(name) == file.size for name, file in done.files.items()) else None

    def _contents(self, steps: Mapping[str, Step]) -> Files:
        """The files of the steps, their records and the config, by their path under the run."""
        contents = {f"{step}/{name}": file for step, done in steps.items() for name, file in done.files.items()}
        for name in ["config.json", *(f"{step}/step.json" for step in steps)]:
            try:
                content = self.store.read(self._key(name))
            except NotFound:
                continue
            contents[name] = FileRecord(size=len(content), sha256=sha256_hex(content))
        return contents

    def _send(self, paths: Mapping[str, Path]) -> Files:
        """Store the files by their path under the run."""
        return send_files(self.store, self._key(""), paths)

    def _immutable(self, what: str) -> StoreError:
        return StoreError(f"{self.uri} is published and does not change ({what}); choose another run name")


def _described(path: Path) -> FileRecord:
    return FileRecord(size=path.stat().st_size, sha256=sha256(path))


def _made(record: dict[str, Any], files: Files) -> Step:
    return Step(record=json.loads(json_bytes(record)), files=files)


def list_runs(store: Store) -> Iterator[RunSummary]:
    """All runs of a store, by name."""
    for name in store.folders("runs/"):
        run = RunStore(store, name)
        published = run.find_published()
        yield RunSummary(
            name=name,
            steps=tuple(run.steps()),
            published_at=published[0].published if published else "",
            digest=published[1].digest if published else "",
        )
