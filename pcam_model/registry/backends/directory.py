"""The store in a folder: needs no server, and is safe for many processes on one file system."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO

from pcam_model.core.errors import StoreError
from pcam_model.core.files import save_blocks, sha256, write_atomic
from pcam_model.core.locks import file_lock
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.backends.base import Conflict, Entry, NotFound, validate_key

BLOCK_BYTES = 1 << 20
SETTING = "PCAM_STORE or --store"
NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class DirectoryStore:
    """A store in a folder: a key is a path below it; hidden files (locks, temporary files) are no objects."""

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
            return file.read(), _etag(file)

    def blocks(self, key: str, start: int = 0) -> Iterator[bytes]:
        """See `Store.blocks`."""
        with self._open(key) as file:
            file.seek(start)
            while block := file.read(BLOCK_BYTES):
                yield block

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """See `Store.write`; a lock on the folder makes condition and write one step."""
        path = self._path(key)
        with self._write_guard(key), self._lock():
            current = self.stat(key)
            if only_if_absent and current is not None:
                raise Conflict(f"{self.uri}/{key} exists already, written by another process; read it and try again")
            if only_if is not None and (current is None or current.etag != only_if):
                raise Conflict(f"{self.uri}/{key} has changed since it was read; read it and try again")
            write_atomic(path, content)
            with path.open("rb") as file:
                return _etag(file)

    def upload(self, key: str, path: Path) -> str:
        """See `Store.upload`."""
        with path.open("rb") as source, self._write_guard(key):
            return save_blocks(iter(lambda: source.read(BLOCK_BYTES), b""), self._path(key), durable=True)

    def matches(self, key: str, path: Path) -> bool:
        """See `Store.matches`; by SHA-256."""
        stored = self._path(key)
        with self._translate_errors(key):
            if not stored.is_file() or stored.stat().st_size != path.stat().st_size:
                return False
            return sha256(stored) == sha256(path)

    def download(self, key: str, path: Path) -> str:
        """See `Store.download`."""
        return save_blocks(self.blocks(key), path)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        start = self.root / prefix.rpartition("/")[0]
        with self._translate_errors(prefix):
            keys = [path.relative_to(self.root).as_posix() for path in _visible_files(start)]
        for key in sorted(key for key in keys if key.startswith(prefix)):
            entry = self.stat(key)
            if entry is not None:
                yield entry

    def folders(self, prefix: str = "") -> Iterator[str]:
        """See `Store.folders`."""
        start, names = self.root / prefix, list[str]()
        with self._translate_errors(prefix):
            if start.is_dir():
                folders = (path.name for path in start.iterdir() if path.is_dir() and not path.name.startswith("."))
                names = [name for name in folders if any(_visible_files(start / name))]
        yield from sorted(names)

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`."""
        with self._translate_errors(key):
            try:
                with self._path(key).open("rb") as file:
                    status = os.fstat(file.fileno())
                    return Entry(key, status.st_size, _etag(file), status.st_mtime)
            except NO_FILE:
                return None

    def delete(self, key: str) -> None:
        """See `Store.delete`; folders that become empty are removed."""
        with self._write_guard(key), self._lock():
            path = self._path(key)
            path.unlink(missing_ok=True)
            for folder in path.relative_to(self.root).parents[:-1]:
                try:
                    (self.root / folder).rmdir()
                except OSError:
                    break

    def _path(self, key: str) -> Path:
        return self.root / validate_key(key)

    def _open(self, key: str) -> BinaryIO:
        with self._translate_errors(key):
            try:
                return self._path(key).open("rb")
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


def _visible_files(folder: Path) -> Iterator[Path]:
    """All files below a folder that are not hidden, nor in a hidden folder."""
    for parent, folders, files in os.walk(folder, onerror=_raise_unless_missing):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _raise_unless_missing(error: OSError) -> None:
    """What cannot be listed is not taken for empty; a folder that is not there (any more) is."""
    if not isinstance(error, NO_FILE):
        raise error


def _etag(file: BinaryIO) -> str:
    """The SHA-256 of a small file; size, time and inode of a large one, which is never written conditionally."""
    status = os.fstat(file.fileno())
    if status.st_size > BLOCK_BYTES:
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
    file.seek(0)
    return hashlib.sha256(file.read()).hexdigest()
