"""Packs in the store, so that a new machine does not download and pack their source again.

`datasets/<digest>/` has a pack's files and, written last, their listing; `sources/<digest of the request>.json` says
which pack a source gave.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pcam_model.core.atomic_dir import build_dir
from pcam_model.core.errors import ModelError, PcamError
from pcam_model.core.parsing import parse_record
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import Files, json_bytes, list_files, sha256_hex
from pcam_model.registry.safe_formats import refuse_pickle, refuse_unsafe_names
from pcam_model.registry.transfer import fetch_files, send_files

DATASETS, LISTING_FILE = "datasets", "files.json"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Dataset(Record):
    """The listing of a pack in the store."""

    digest: Digest
    files: Files


class SourceRecord(Record):
    """The pack that a source gave."""

    request: dict[str, Any]
    """The keys of the source's configuration that decide its content."""
    digest: Digest
    """Of the pack."""


def upload_dataset(store: Store, request: Mapping[str, Any], digest: str, folder: Path) -> None:
    """Upload a pack's files, then their listing, then the record of its source; existing files are not sent again."""
    files = send_files(store, f"{DATASETS}/{digest}/", list_files(folder, recursive=False))
    store.write(f"{DATASETS}/{digest}/{LISTING_FILE}", json_bytes(Dataset(digest=digest, files=files).model_dump()))
    record = SourceRecord(request=dict(request), digest=digest)
    store.write(_source_key(request), json_bytes(record.model_dump()))


def find_dataset(store: Store, request: Mapping[str, Any]) -> str | None:
    """The digest of the pack that this source gave, or None where the store has none of it."""
    key = _source_key(request)
    try:
        return parse_record(SourceRecord, store.read(key), f"{store.uri}/{key}").digest
    except NotFound:
        return None


def fetch_dataset(store: Store, digest: str, folder: Path, check: Callable[[Path], object]) -> None:
    """Download a pack into a folder, which appears complete; an interrupted download is resumed.

    Args:
        store: the pack's store.
        digest: the pack's digest.
        folder: the folder to make; one that passes the check stays, another one is replaced.
        check: raises `PcamError` where a folder does not have the pack of this digest.

    Raises:
        ModelError: the store's pack is missing or damaged; nothing is left.
        DiskFullError: the disk is full.
        UnwritableError: the folder cannot be made.
    """

    def is_complete(path: Path) -> bool:
        return path.exists() and _passes(check, path)

    if is_complete(folder):
        return
    with write_guard(folder), build_dir(folder, is_complete, resume=True) as part:
        if part is None:
            return
        try:
            _download(store, digest, part)
            _check(store, digest, part, check)
        except ModelError:
            shutil.rmtree(part)
            raise


def read_dataset(store: Store, digest: str) -> Dataset:
    """The listing of a pack. Raises ModelError where it is missing or malformed."""
    key = f"{DATASETS}/{digest}/{LISTING_FILE}"
    try:
        return parse_record(Dataset, store.read(key), f"{store.uri}/{key}")
    except NotFound:
        raise ModelError(f"{store.uri} has no complete pack {digest[:12]}; make it again from its source") from None


def _download(store: Store, digest: str, part: Path) -> None:
    dataset, prefix = read_dataset(store, digest), f"{DATASETS}/{digest}"
    refuse_unsafe_names(f"{store.uri}/{prefix}", list(dataset.files))
    fetch_files(store, f"{prefix}/", dataset.files, part)
    for name in dataset.files:
        refuse_pickle(part / name, f"{store.uri}/{prefix}/{name}")


def _check(store: Store, digest: str, part: Path, check: Callable[[Path], object]) -> None:
    try:
        check(part)
    except PcamError as error:
        raise ModelError(
            f"{store.uri}/{DATASETS}/{digest} is not the pack of this digest ({error}); delete it"
        ) from error


def _passes(check: Callable[[Path], object], folder: Path) -> bool:
    try:
        check(folder)
    except PcamError:
        return False
    return True


def _source_key(request: Mapping[str, Any]) -> str:
    return f"sources/{sha256_hex(json_bytes(dict(request)))[:32]}.json"
