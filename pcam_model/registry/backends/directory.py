"""The directory room of the store: no server, safe for many processes on one file system."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pcam_model.core.errors import StoreError
from pcam_model.core.files import disk_space_guard, sha256, write_atomic
from pcam_model.registry.backends.base import Conflict, Entry, NotFound, checked_key
from pcam_model.registry.transfer import save_blocks

BLOCK = 1 << 20


class DirectoryStore:
    """A folder; a key is a path in it. Hidden names (locks, parts under way) are no objects."""

    def __init__(self, root: Path) -> None:
        """`root` is absolute, and made when the first object is written."""
        self.root = root

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
            while block := file.read(BLOCK):
                yield block

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """See `Store.write`; conditions hold between processes by a lock on the folder."""
        path = self._path(key)
        with self._speaking(key), self._locked():
            there = self.stat(key)
            if only_if_absent and there is not None:
                raise Conflict(f"{self.uri}/{key} is already there; somebody else was quicker")
            if only_if is not None and (there is None or there.etag != only_if):
                raise Conflict(f"{self.uri}/{key} has changed since it was read; read it again and decide anew")
            write_atomic(path, content)
            with path.open("rb") as file:
                return _etag(file)

    def upload(self, key: str, path: Path) -> str:
        """See `Store.upload`."""
        with path.open("rb") as source, self._speaking(key):
            return save_blocks(iter(lambda: source.read(BLOCK), b""), self._path(key), durable=True)

    def holds(self, key: str, path: Path) -> bool:
        """See `Store.holds`."""
        there = self._path(key)
        if not there.is_file() or there.stat().st_size != path.stat().st_size:
            return False
        return sha256(there) == sha256(path)

    def download(self, key: str, path: Path) -> str:
        """See `Store.download`."""
        return save_blocks(self.blocks(key), path)

    def entries(self, prefix: str = "") -> Iterator[Entry]:
        """See `Store.entries`."""
        start = self.root / prefix.rpartition("/")[0]
        keys = (path.relative_to(self.root).as_posix() for path in _visible(start))
        for key in sorted(key for key in keys if key.startswith(prefix)):
            entry = self.stat(key)
            if entry is not None:
                yield entry

    def folders(self, prefix: str = "") -> Iterator[str]:
        """See `Store.folders`."""
        start = self.root / prefix
        if start.is_dir():
            names = sorted(path.name for path in start.iterdir() if path.is_dir() and not path.name.startswith("."))
            yield from (name for name in names if any(_visible(start / name)))

    def stat(self, key: str) -> Entry | None:
        """See `Store.stat`."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                return Entry(key, status.st_size, _etag(file), status.st_mtime)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def delete(self, key: str) -> None:
        """See `Store.delete`; folders that become empty go too."""
        with self._speaking(key), self._locked():
            path = self._path(key)
            path.unlink(missing_ok=True)
            for folder in path.relative_to(self.root).parents[:-1]:
                try:
                    (self.root / folder).rmdir()
                except OSError:
                    break

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)

    def _open(self, key: str) -> BinaryIO:
        with self._speaking(key):
            try:
                return self._path(key).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise NotFound(f"{self.uri} has no {key}; look at what is there with `pcam runs`") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _speaking(self, key: str) -> Iterator[None]:
        try:
            with disk_space_guard(self.root):
                yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise StoreError(
                f"{self.uri}: the store's folder refuses {key} ({reason}); it must be a folder that you may write to"
            ) from error


def _visible(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _etag(file: BinaryIO) -> str:
    """The digest of what is small enough to be compared and swapped; the file's identity for what is large."""
    status = os.fstat(file.fileno())
    if status.st_size > BLOCK:
        return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
    file.seek(0)
    return hashlib.sha256(file.read()).hexdigest()
