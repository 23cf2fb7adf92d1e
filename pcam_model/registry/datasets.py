"""Packs in the store: what was downloaded and packed once is not asked of its source again.

`datasets/<digest>/` holds a pack and, written last, the list of its files; `sources/<name>.json` says which digest the
pack of a source has.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pcam_model.core.errors import ModelError, PcamError
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import Files, json_bytes, list_files, parsed, sha256_hex
from pcam_model.registry.safe_formats import refuse_pickle, refuse_unsafe_names
from pcam_model.registry.transfer import exclusive_dir, fetch_files, send_files

LIST = "files.json"
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Dataset(Record):
    """A pack in the store."""

    digest: Digest
    files: Files


class Source(Record):
    """What was asked of a source, and the digest of the pack that came of it."""

    asked: dict[str, Any]
    digest: Digest


def upload_dataset(store: Store, asked: Mapping[str, Any], digest: str, folder: Path) -> None:
    """Store the files of a pack, then their list, then of which source it is; what is there already is not sent."""
    files = send_files(store, f"datasets/{digest}/", list_files(folder, deep=False))
    store.write(f"datasets/{digest}/{LIST}", json_bytes(Dataset(digest=digest, files=files).model_dump()))
    store.write(_source(asked), json_bytes(Source(asked=dict(asked), digest=digest).model_dump()))


def find_dataset(store: Store, asked: Mapping[str, Any]) -> str | None:
    """The digest of the pack that this source has given, or None where the store does not know it."""
    key = _source(asked)
    try:
        return parsed(Source, store.read(key), f"{store.uri}/{key}").digest
    except NotFound:
        return None


def fetch_dataset(store: Store, digest: str, folder: Path, check: Callable[[Path], object]) -> None:
    """Download a pack into a folder, which appears whole; a download that was broken off is gone on with.

    Args:
        store: where it is.
        digest: of the pack.
        folder: a new one; where it is there already, it is only checked, and made anew where it fails.
        check: raises `PcamError` where a folder does not hold the pack of this digest.

    Raises:
        ModelError: the store's pack is not there, not whole, or not what its digest says; nothing is left.
        DiskFullError: there is no room for it.
    """
    part = folder.with_name(f".{folder.name}.part")
    if _passes(check, folder):
        return
    with exclusive_dir(part):
        if _passes(check, folder):
            return
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _fetch(store, digest, part)
            _check(store, digest, part, check)
        except ModelError:
            shutil.rmtree(part)
            raise
        (part / ".lock").unlink()
        os.replace(part, folder)


def read_dataset(store: Store, digest: str) -> Dataset:
    """What the store says of a pack. Raises ModelError where it is not whole."""
    key = f"datasets/{digest}/{LIST}"
    try:
        return parsed(Dataset, store.read(key), f"{store.uri}/{key}")
    except NotFound:
        raise ModelError(f"{store.uri} has no whole pack {digest[:12]}") from None


def _fetch(store: Store, digest: str, part: Path) -> None:
    dataset, place = read_dataset(store, digest), f"datasets/{digest}"
    refuse_unsafe_names(f"{store.uri}/{place}", list(dataset.files))
    fetch_files(store, f"{place}/", dataset.files, part)
    for name in dataset.files:
        refuse_pickle(part / name, f"{store.uri}/{place}/{name}")


def _check(store: Store, digest: str, part: Path, check: Callable[[Path], object]) -> None:
    try:
        check(part)
    except PcamError as error:
        raise ModelError(f"{store.uri}/datasets/{digest} is not what its name says ({error})") from error


def _passes(check: Callable[[Path], object], folder: Path) -> bool:
    try:
        if folder.exists():
            check(folder)
            return True
    except PcamError:
        pass
    return False


def _source(asked: Mapping[str, Any]) -> str:
    return f"sources/{sha256_hex(json_bytes(dict(asked)))[:32]}.json"
