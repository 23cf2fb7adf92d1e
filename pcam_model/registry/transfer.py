"""Files to and from a store: several at a time, verified, and resumed where a transfer broke off."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pcam_model.core.errors import DiskFullError, ModelError, StoreError
from pcam_model.core.files import sha256
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import Store
from pcam_model.registry.manifest import FileRecord, Files

T = TypeVar("T")
R = TypeVar("R")
THREADS = 4
BLOCK_BYTES = 1 << 20


def fetch_verified(store: Store, key: str, path: Path, expected: FileRecord) -> None:
    """Download a file of known size and SHA-256; what an interrupted download left is resumed.

    The caller excludes other processes that download to the same path, see `core.locks.file_lock`.

    Raises:
        ModelError: the object has another size or digest; nothing is left.
        DiskFullError: the disk is full; nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{expected.sha256[:16]}.part")
    resumed = part.exists()
    try:
        verified = _download_rest(store, key, part, expected)
        if resumed and not verified:  # what was there may have been damaged
            part.unlink()
            verified = _download_rest(store, key, part, expected)
    except DiskFullError:
        part.unlink(missing_ok=True)
        raise
    if not verified:
        part.unlink()
        raise ModelError(
            f"{store.uri}/{key}: size or SHA-256 is not the recorded one ({expected.size:,} bytes, "
            f"{expected.sha256[:12]}); the object is damaged, `pcam verify` lists all damaged ones"
        )
    part.replace(path)


def fetch_files(store: Store, prefix: str, files: Files, folder: Path) -> None:
    """Download the files that the folder does not have already; see `fetch_verified`."""

    def fetch(name: str) -> None:
        if not is_same_file(folder / name, files[name]):
            fetch_verified(store, prefix + name, folder / name, files[name])

    map_parallel(fetch, files)


def send_files(store: Store, prefix: str, paths: Mapping[str, Path]) -> Files:
    """Upload files to keys under a prefix, except those that the store has already; returns their sizes and digests.

    Raises:
        StoreError: a file changed while it was sent.
    """

    def send(name: str, path: Path) -> FileRecord:
        before = path.stat()
        is_stored = store.matches(prefix + name, path)
        digest = sha256(path) if is_stored else store.upload(prefix + name, path)
        after = path.stat()
        if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size):
            raise StoreError(f"{path} changed while it was uploaded; write it to its end first, then commit it again")
        return FileRecord(size=after.st_size, sha256=digest)

    return dict(zip(paths, map_parallel(lambda item: send(*item), paths.items()), strict=True))


def map_parallel(function: Callable[[T], R], items: Iterable[T], threads: int = THREADS) -> list[R]:
    """`function` mapped over all items by threads; the first failure cancels the calls that have not begun."""
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(function, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def is_same_file(path: Path, expected: FileRecord) -> bool:
    """Whether the file exists with this size and SHA-256."""
    return path.is_file() and path.stat().st_size == expected.size and sha256(path) == expected.sha256


def _download_rest(store: Store, key: str, part: Path, expected: FileRecord) -> bool:
    """Append the object's bytes that `part` does not have; whether it then has the expected size and digest."""
    digest = hashlib.sha256()
    with write_guard(part.parent), part.open("a+b") as file:
        file.seek(0)
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
        for block in store.blocks(key, file.tell()):
            digest.update(block)
            file.write(block)
            if file.tell() > expected.size:
                return False
        file.flush()
        return file.tell() == expected.size and digest.hexdigest() == expected.sha256
