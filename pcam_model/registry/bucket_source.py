"""Download of a source of patches from a bucket: one object, or all objects under a prefix."""

import json
import re
import shutil
import threading
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pcam_model.core.errors import ModelError, SourceError
from pcam_model.core.files import md5, write_atomic
from pcam_model.core.locks import file_lock
from pcam_model.core.log import log
from pcam_model.core.parsing import parse_json
from pcam_model.core.progress import progress
from pcam_model.core.write_guard import require_disk_space, write_guard
from pcam_model.registry.backends.base import Entry, Store
from pcam_model.registry.factory import open_store
from pcam_model.registry.manifest import sha256_hex
from pcam_model.registry.transfer import map_parallel

LISTING_FILE, PART_SUFFIX = ".listing.json", ".part"
MD5_ETAG = re.compile(r"[0-9a-f]{32}")  # else it is the etag of several parts, or of an encrypted object
SMALL_BYTES = 8 << 20  # an object that is read by one request
THREADS = 12
SINGLE = "object"  # the name of the folder for one object; that for a prefix ends in .prefix
Listing = dict[str, list[int | str]]
"""Size and etag of each object, by its path below the address."""


def fetch_bucket(uri: str, downloads: Path) -> Path:
    """The file or folder on this machine with what is at `s3://bucket/key`; what has not changed is not read again.

    An object's size is verified, and its MD5 where its etag is one. Hidden objects, as .DS_Store, are left out.

    Args:
        uri: the address of an object or of a prefix, read with the client and the credentials of stores.
        downloads: the folder of all downloads.

    Raises:
        SourceError: there is nothing at the address, or an object is damaged on its way each time.
        StoreUnavailable: the server does not answer.
        StoreError: the server refuses, or an object was replaced meanwhile.
        UnwritableError: `downloads` cannot be written to, or its disk is full.
    """
    store, entries, name = find_objects(uri)
    folder = downloads / f"s3-{sha256_hex(uri.rstrip('/').encode())[:16]}"
    listing: Listing = {path: [entry.size, entry.etag] for path, entry in sorted(entries.items())}
    with write_guard(downloads), file_lock(folder / ".lock"):
        _remove_stale(folder, name, listing)
        missing = {path: entry for path, entry in entries.items() if not (folder / name / path).exists()}
        if missing:
            size = sum(entry.size for entry in missing.values())
            log.info("Source: downloading %s objects, %.1f MB, from %s", f"{len(missing):,}", size / 1e6, uri)
            require_disk_space(folder, size, "the source")
            _download_all(store, missing, folder / name)
    return folder / name / next(iter(entries)) if name == SINGLE else folder / name


def find_objects(uri: str, first_only: bool = False) -> tuple[Store, dict[str, Entry], str]:
    """What is at an address, or only the first object of it.

    Returns:
        The store to read from, the objects by their path below the address, and the name of the folder for them.

    Raises:
        SourceError: there is nothing.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    if parent != "s3:/" and not uri.endswith("/"):
        store = open_store(parent)
        if entry := store.stat(name):
            return store, {name: entry}, SINGLE
    store = open_store(uri)
    visible = (entry for entry in store.entries() if not _is_hidden(entry.key))
    entries = {entry.key: entry for entry in islice(visible, 1 if first_only else None)}
    if not entries:
        raise SourceError(f"{uri}: there is no object of this name, and none below it; correct source.path")
    return store, entries, f"{name}.prefix"


def _is_hidden(key: str) -> bool:
    return any(part.startswith(".") for part in key.split("/"))


def _remove_stale(folder: Path, name: str, listing: Listing) -> None:
    """Remove what has changed in the bucket since it was downloaded; then a file that is there is the object's."""
    path = folder / LISTING_FILE
    before: dict[str, Any] = {}
    try:
        before = parse_json(path.read_bytes(), path, remedy="it is made again") if path.is_file() else {}
    except ModelError as error:
        log.warning("%s, and everything is downloaded again", error)
        shutil.rmtree(folder / name, ignore_errors=True)
    for key, state in before.items():
        if listing.get(key) != state:
            (folder / name / key).unlink(missing_ok=True)
    write_atomic(path, json.dumps(listing).encode())


def _download_all(store: Store, entries: Mapping[str, Entry], folder: Path) -> None:
    done, lock = 0, threading.Lock()
    with progress("downloading", "objects") as on_progress:

        def download(item: tuple[str, Entry]) -> None:
            nonlocal done
            _download(store, item[1], folder / item[0])
            with lock:
                done += 1
                on_progress(done, len(entries))

        map_parallel(download, entries.items(), THREADS)
    for part in folder.rglob(f".*{PART_SUFFIX}"):  # of an object that has changed since
        part.unlink()


def _download(store: Store, entry: Entry, path: Path) -> None:
    """Download an object, resumed where it broke off; a second time where its MD5 is not its etag.

    The etag of an object that the server encrypts looks like an MD5 and is none: the same bytes twice are the object's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{sha256_hex(entry.etag.encode())[:16]}{PART_SUFFIX}")
    digest = ""
    for _ in range(2):
        _append_rest(store, entry, part)
        if part.stat().st_size != entry.size:
            part.unlink()
            raise SourceError(f"{store.uri}/{entry.key} was replaced while it was downloaded; run again")
        before, digest = digest, md5(part) if MD5_ETAG.fullmatch(entry.etag) else entry.etag
        if digest in (entry.etag, before):
            part.replace(path)
            return
        part.unlink()
    raise SourceError(f"{store.uri}/{entry.key}: its bytes are others each time; check the connection, and run again")


def _append_rest(store: Store, entry: Entry, part: Path) -> None:
    with part.open("ab") as file:
        if entry.size <= SMALL_BYTES and not file.tell():
            file.write(store.read(entry.key))
        elif file.tell() < entry.size:
            for block in store.blocks(entry.key, file.tell()):
                file.write(block)
