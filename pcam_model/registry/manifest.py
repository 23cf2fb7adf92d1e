"""Manifests: every file of a published run with its size and SHA-256."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from pcam_model.core.errors import ModelError, StoreError
from pcam_model.core.parsing import parse_record
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store, validate_key

RUNS = "runs"


class FileRecord(Record):
    """Size in bytes and SHA-256 of a file."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _validate_paths(files: dict[str, FileRecord]) -> dict[str, FileRecord]:
    for path in files:
        try:
            validate_key(path)
        except StoreError as error:
            raise ValueError(str(error)) from None
    return files


Files = Annotated[dict[str, FileRecord], AfterValidator(_validate_paths)]
"""Files by relative path."""


class StepManifest(Record):
    """A finished step: its record, and its files by their path under the step."""

    record: dict[str, Any]
    files: Files


class Manifest(Record):
    """A published run: its files by their path under `runs/<run>/`."""

    format: int = Field(default=1, ge=1, le=1)
    run: str
    published_at: str
    """ISO 8601, UTC."""
    mpp: float | None = Field(None, gt=0, le=20)
    """Microns per pixel of the patches that its model takes; None where it has no model, or one that tells none."""
    files: Files


class PublishedRun(Record):
    """Address and identity of a published run, or of published scores."""

    uri: str
    digest: str
    """The SHA-256 of its manifest."""


def json_bytes(content: Any) -> bytes:
    """Indented JSON with sorted keys: the same bytes for the same content."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def utc_now() -> str:
    """The time, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256_hex(content: bytes) -> str:
    """The SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def parse_manifest(content: bytes, address: str, run: str | None = None) -> Manifest:
    """A manifest from JSON. Raises ModelError where it is malformed, has unsafe paths or is of another run."""
    manifest = parse_record(Manifest, content, address)
    if run is not None and manifest.run != run:
        raise ModelError(f"{address}: the manifest is of run {manifest.run!r}, not of {run!r}; do not use this run")
    return manifest


def read_manifest(
    store: Store, run: str, *, check_files: bool = True, namespace: str = RUNS
) -> tuple[Manifest, PublishedRun]:
    """The manifest of a published run, and its identity.

    Args:
        store: the store.
        run: the run's name.
        check_files: whether the sizes of its files are compared with those of the objects.
        namespace: the first part of its keys: `runs` or `scores`.

    Raises:
        ModelError: the run is not published, its manifest is malformed, or files are missing or have another size.
    """
    key = f"{namespace}/{run}/manifest.json"
    try:
        content = store.read(key)
    except NotFound:
        raise not_published(store, run) from None
    manifest = parse_manifest(content, f"{store.uri}/{key}", run)
    if check_files:
        check_sizes(store, run, manifest.files, namespace)
    return manifest, PublishedRun(uri=f"{store.uri}/{namespace}/{run}", digest=sha256_hex(content))


def not_published(store: Store, run: str) -> ModelError:
    """The error of a run that the store does not have, or has unfinished."""
    return ModelError(
        f"{store.uri}: run {run!r} is not published, and no channel has this name; `pcam runs` lists the runs, and "
        "`pcam promote RUN` points the channel champion to one"
    )


def check_sizes(store: Store, run: str, files: Files, namespace: str = RUNS) -> None:
    """Raise ModelError unless the store has all these files of the run in these sizes."""
    prefix = f"{namespace}/{run}/"
    sizes = object_sizes(store, prefix)
    wrong = [path for path, file in files.items() if sizes.get(path) != file.size]
    if wrong:
        size = sizes.get(wrong[0])
        raise ModelError(
            f"{store.uri}/{prefix}{wrong[0]}: expected {files[wrong[0]].size:,} bytes, found "
            f"{'nothing' if size is None else f'{size:,}'} ({len(wrong)} such); the run is damaged, train it again"
        )


def object_sizes(store: Store, prefix: str) -> dict[str, int]:
    """The size in bytes of each object under a prefix, by its key without the prefix."""
    return {entry.key.removeprefix(prefix): entry.size for entry in store.entries(prefix)}


def list_files(folder: Path, recursive: bool = True) -> dict[str, Path]:
    """The files in a folder by their relative path, without hidden ones (locks, temporary files)."""
    paths = sorted(folder.rglob("*") if recursive else folder.glob("*"))
    files = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return {name: path for name, path in files.items() if not any(part.startswith(".") for part in name.split("/"))}
