"""Objects that become files: whole, verified, and taken up again where they were broken off."""

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pcam_model.core.errors import DiskFullError, ModelError, StoreError
from pcam_model.core.files import atomic_file, disk_space_guard, sha256
from pcam_model.registry.backends.base import Store
from pcam_model.registry.manifest import FileRecord, Files

T = TypeVar("T")
R = TypeVar("R")


def save_blocks(blocks: Iterable[bytes], path: Path, durable: bool = False) -> str:
    """Write the blocks beside, then replace; `durable`: flushed to the disk before. Returns the SHA-256."""
    digest = hashlib.sha256()
    with disk_space_guard(path.parent), atomic_file(path, durable) as part, part.open("wb") as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def fetch_verified(store: Store, key: str, path: Path, expected: FileRecord) -> None:
    """Download a file whose size and digest are known; a part left by a broken try is gone on with.

    Only one process may do this for a path at a time, see `alone_in`.

    Raises:
        ModelError: What came is not what was expected; nothing is left.
        DiskFullError: There is no room; nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{expected.sha256[:16]}.part")
    begun = part.exists()
    try:
        good = _go_on(store, key, part, expected)
        if begun and not good:
            part.unlink()
            good = _go_on(store, key, part, expected)
    except DiskFullError:
        part.unlink(missing_ok=True)
        raise
    if not good:
        part.unlink()
        raise ModelError(
            f"{store.uri}/{key}: size or SHA-256 is not the recorded one ({expected.size:,} bytes, "
            f"{expected.sha256[:12]}); the object is damaged, `pcam verify` lists what else is"
        )
    os.replace(part, path)


def fetch_files(store: Store, prefix: str, files: Files, folder: Path) -> None:
    """Download, verified and several at a time, what the folder does not already hold; see `fetch_verified`."""

    def fetch(name: str) -> None:
        if not same_file(folder / name, files[name]):
            fetch_verified(store, prefix + name, folder / name, files[name])

    run_parallel(fetch, files)


def send_files(store: Store, prefix: str, paths: Mapping[str, Path]) -> Files:
    """Store files by their path under the prefix, several at a time; what is there already is not sent again."""

    def send(name: str, path: Path) -> FileRecord:
        before = path.stat()
        held = store.matches(prefix + name, path)
        digest = sha256(path) if held else store.upload(prefix + name, path)
        if (after := path.stat()).st_mtime_ns != before.st_mtime_ns or after.st_size != before.st_size:
            raise StoreError(f"{path} changed while it was being stored; write it whole, then commit it again")
        return FileRecord(size=after.st_size, sha256=digest)

    return dict(zip(paths, run_parallel(lambda item: send(*item), paths.items()), strict=True))


def run_parallel(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`work` over all items, four at a time; the first failure stops what has not begun."""
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


def _go_on(store: Store, key: str, part: Path, expected: FileRecord) -> bool:
    digest = hashlib.sha256()
    with disk_space_guard(part.parent), part.open("a+b") as file:
        file.seek(0)
        while block := file.read(1 << 20):
            digest.update(block)
        for block in store.blocks(key, file.tell()):
            digest.update(block)
            file.write(block)
            if file.tell() > expected.size:
                return False
        file.flush()
        return file.tell() == expected.size and digest.hexdigest() == expected.sha256


def same_file(path: Path, expected: FileRecord) -> bool:
    """Whether the file is there with this size and digest."""
    if not path.is_file() or path.stat().st_size != expected.size:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == expected.sha256


@contextmanager
def exclusive_dir(folder: Path) -> Iterator[None]:
    """Wait until no other process fetches into this folder, and keep others waiting."""
    with disk_space_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("ab")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
