"""What a published run consists of: every file with its size and digest."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, ValidationError

from pcam_model.core.errors import ModelError, StoreError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store, validate_key

R = TypeVar("R", bound=Record)
RUNS = "runs"


class FileRecord(Record):
    """One file: its size in bytes and the SHA-256 of its content."""

    size: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _plain(files: dict[str, FileRecord]) -> dict[str, FileRecord]:
    for path in files:
        try:
            validate_key(path)
        except StoreError as error:
            raise ValueError(str(error)) from None
    return files


Files = Annotated[dict[str, FileRecord], AfterValidator(_plain)]


class Step(Record):
    """A finished step: what it says, and its files by their path under the step."""

    record: dict[str, Any]
    files: Files


class Manifest(Record):
    """A published run: its files by their path under `runs/<run>/`."""

    format: int = Field(default=1, ge=1, le=1)
    run: str
    published: str
    """When, as ISO 8601 in UTC."""
    files: Files


class PublishedRun(Record):
    """A run that others can rely on: where it is, and the SHA-256 of its manifest."""

    uri: str
    digest: str


def json_bytes(content: Any) -> bytes:
    """JSON that reads well, and is the same for the same content."""
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def now() -> str:
    """The time, as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def sha256_hex(content: bytes) -> str:
    """The SHA-256 of small content, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def parse_manifest(content: bytes, place: str, run: str | None = None) -> Manifest:
    """A manifest that can be trusted in form: known keys, plain relative paths, the right run; else `ModelError`."""
    manifest = parsed(Manifest, content, place)
    if run is not None and manifest.run != run:
        raise ModelError(f"{place}: the manifest is of run {manifest.run!r}, not of {run!r}; do not use this run")
    return manifest


def parse_step(content: bytes, place: str) -> Step:
    """A step's record that can be trusted in form, else `ModelError`."""
    return parsed(Step, content, place)


def read_manifest(
    store: Store, run: str, sizes_too: bool = True, namespace: str = RUNS
) -> tuple[Manifest, PublishedRun]:
    """The manifest of a published run (or of what else a `room` holds), checked against what is there (`sizes_too`).

    Raises:
        ModelError: The run is not published, its manifest is not one, or files are missing or have another size.
    """
    key = f"{namespace}/{run}/manifest.json"
    place = f"{store.uri}/{key}"
    try:
        content = store.read(key)
    except NotFound:
        raise ModelError(f"{store.uri}: run {run!r} is not published; `pcam runs` shows what is") from None
    manifest = parse_manifest(content, place, run)
    if sizes_too:
        check_sizes(store, run, manifest.files, namespace)
    return manifest, PublishedRun(uri=f"{store.uri}/{namespace}/{run}", digest=sha256_hex(content))


def check_sizes(store: Store, run: str, files: Files, namespace: str = RUNS) -> None:
    """Raise `ModelError` unless the store holds all these files of the run in these sizes."""
    prefix = f"{namespace}/{run}/"
    there = sizes(store, prefix)
    wrong = [path for path, file in files.items() if there.get(path) != file.size]
    if wrong:
        found = there.get(wrong[0])
        raise ModelError(
            f"{store.uri}/{prefix}{wrong[0]}: expected {files[wrong[0]].size:,} bytes, found "
            f"{'nothing' if found is None else f'{found:,}'} ({len(wrong)} such); the run is damaged, train it again"
        )


def sizes(store: Store, prefix: str) -> dict[str, int]:
    """The size in bytes of all that is under a prefix, by its key without the prefix."""
    return {entry.key.removeprefix(prefix): entry.size for entry in store.entries(prefix)}


def list_files(folder: Path, deep: bool = True) -> dict[str, Path]:
    """The files below a folder by their relative path; hidden ones are parts under way, and no part of it."""
    found = sorted(folder.rglob("*") if deep else folder.glob("*"))
    paths = {path.relative_to(folder).as_posix(): path for path in found if path.is_file()}
    return {name: path for name, path in paths.items() if not any(part.startswith(".") for part in name.split("/"))}


def parsed(kind: type[R], content: bytes, place: str) -> R:
    """A record that can be trusted in form, else `ModelError`."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "all of it"
        raise ModelError(f"{place} is not to be trusted: {where}: {first['msg']}; nothing was read from it") from None
