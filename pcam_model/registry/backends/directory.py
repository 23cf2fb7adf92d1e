"""The store in a folder: needs no server, and is safe for many processes on one file system."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from pcam_model.core.errors import StoreError
from pcam_model.core.files import save_blocks, sha256, sweep_temporary, write_atomic
from pcam_model.core.locks import file_lock
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import MAX_READ_BYTES, Conflict, Entry, NotFound, too_large, validate_key
from pcam_model.registry.backends.plain_files import (
    open_parent,
    open_plain,
    plain_entries,
    plain_keys,
    require_plain,
    unlink_plain,
)

BLOCK_BYTES = 1 << 20
SETTING = "PCAM_STORE or --store"
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DirectoryStore:
    """A store in a folder: a key is a path below it; hidden files (locks, temporary files) are no objects.

    No symbolic link below the folder is followed, no pipe or device opened: what reads or writes through one raises
    StoreError, and listings leave it out with a warning.
    """

    def __init__(self, root: Path) -> None:
        """`root` is made when the first object is written."""
        self.root = Path(os.path.abspath(root))  # noqa: PTH100 (symbolic links stay)

    @property
    def uri(self) -> str:
        """The address as `file:///folder`."""
        return self.root.as_uri()

    def read(self, key: str) -> bytes:
        """See `Store.read`."""
        return self.get(key)[0]

    def get(self, key: str) -> tuple[bytes, str]:
        """See `Store.get`."""
        with self._open(key) as file:
            content = file.read(MAX_READ_BYTES + 1)
            if len(content) > MAX_READ_BYTES:
                raise too_large(f"{self.uri}/{key}")
            return content, _etag(file)

    def blocks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """See `Store.blocks`."""
        with self._open(key) as file:
            file.seek(start)
            while block := file.read(BLOCK_BYTES):
                yield block

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """See `Store.write`; a lock on the folder makes condition and write one step."""
        with self._write_guard(key), self._lock():
            path = self._plain_path(key)
            current = self.stat(key)
            if only_if_absent and current is not None:
                raise Conflict(f"{self.uri}/{key} exists already, written by another process; read it and try again")
            if only_if is not None and (current is None or current.etag != only_if):
                raise Conflict(f"{self.uri}/{key} has changed since it was read; read it and try again")
            write_atomic(path, content)
            with open_plain(self.root, key) as file:
                return _etag(file)

    def upload(self, key: str, path: Path) -> str:
        """See `Store.upload`."""
        with path.open("rb") as source, self._write_guard(key):
            return save_blocks(iter(lambda: source.read(BLOCK_BYTES), b""), self._plain_path(key), durable=True)

    def matches(self, key: str, path: Path) -> bool:
        """See `Store.matches`; by SHA-256."""
        try:
            with self._open(key) as stored:
                if os.fstat(stored.fileno()).st_size != path.stat().st_size:
                    return False
                return hashlib.file_digest(stored, "sha256").hexdigest() == sha256(path)
        except NotFound:
            return False

    def download(self, key: str, path: Path) -> str:
        """See `Store.download`."""
        return save_blocks(self.blocks(key), path)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        folder, slash, _ = prefix.rpartition("/")
        with self._translate_errors(prefix):
            keys = list(plain_keys(self.root, folder + slash))
        for key in sorted(key for key in keys if key.startswith(prefix)):
            entry = self.stat(key)
            if entry is not None:
                yield entry

    def folders(self, prefix: str = "") -> Iterator[str]:
        """See `Store.folders`."""
        with self._translate_errors(prefix):
            folders = [each.name for each in plain_entries(self.root, prefix) if each.is_dir]
            names = [name for name in folders if any(plain_keys(self.root, f"{prefix}{name}/"))]
        yield from sorted(names)

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`."""
        with self._translate_errors(key):
            try:
                with open_plain(self.root, validate_key(key)) as file:
                    status = os.fstat(file.fileno())
                    return Entry(key, status.st_size, _etag(file), status.st_mtime)
            except NO_FILE:
                return None

    def delete(self, key: str) -> None:
        """See `Store.delete`; folders that become empty are removed."""
        with self._write_guard(key), self._lock():
            unlink_plain(self.root, validate_key(key))

    def sweep(self, prefix: str) -> None:
        """See `Store.sweep`."""
        with self._translate_errors(prefix), suppress(*NO_FILE), open_parent(self.root, f"{prefix}name"):
            sweep_temporary(self.root / prefix)

    def _plain_path(self, key: str) -> Path:
        """The path to write an object to. Raises StoreError where it leads through a link."""
        require_plain(self.root, validate_key(key))
        return self.root / key

    def _open(self, key: str) -> BufferedReader:
        with self._translate_errors(key):
            try:
                return open_plain(self.root, validate_key(key))
            except NO_FILE:
                raise NotFound(f"{self.uri} has no object {key}; `pcam runs` lists the store's runs") from None

    def _lock(self) -> AbstractContextManager[None]:
        return file_lock(self.root / ".lock")

    @contextmanager
    def _write_guard(self, key: str) -> Iterator[None]:
        with self._translate_errors(key), write_guard(self.root, SETTING):
            yield

    @contextmanager
    def _translate_errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreError(
                f"{self.uri}: the store's folder refuses {key or 'to be listed'} ({reason}); make it a folder that "
                "you may use"
            ) from error


def _etag(file: BinaryIO) -> str:
    """The SHA-256 of a small file; size, time and inode of a large one, which is never written conditionally."""
    status = os.fstat(file.fileno())
    if status.st_size > BLOCK_BYTES:
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
    file.seek(0)
    return hashlib.sha256(file.read()).hexdigest()
