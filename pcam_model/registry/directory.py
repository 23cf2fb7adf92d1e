"""The directory room of the store: no server, safe for many processes on one file system."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import BinaryIO

from pcam_model.errors import StoreError
from pcam_model.files import room_on_disk, write_whole
from pcam_model.registry.store import Conflict, Entry, NotThere, checked_key

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
        with self._open(key) as file:
            return file.read()

    def write(self, key: str, content: bytes, *, only_if_absent: bool = False, only_if: str | None = None) -> str:
        """See `Store.write`; conditions hold between processes by a lock on the folder."""
        path = self._path(key)
        with self._speaking(key), self._locked():
            there = self.stat(key)
            if only_if_absent and there is not None:
                raise Conflict(f"{self.uri}/{key} is already there; somebody else was quicker")
            if only_if is not None and (there is None or there.etag != only_if):
                raise Conflict(f"{self.uri}/{key} has changed since it was read; read it again and decide anew")
            write_whole(path, content)
            return _etag(path)

    def upload(self, key: str, path: Path) -> str:
        """See `Store.upload`."""
        with self._speaking(key), path.open("rb") as source:
            return _copy_whole(source, self._path(key))

    def download(self, key: str, path: Path) -> str:
        """See `Store.download`."""
        with self._open(key) as source, room_on_disk(path.parent):
            return _copy_whole(source, path)

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
            return Entry(key, path.stat().st_size, _etag(path)) if path.is_file() else None
        except FileNotFoundError:
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
                raise NotThere(f"{self.uri} has no {key}; look at what is there with `pcam runs`") from None

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _speaking(self, key: str) -> Iterator[None]:
        try:
            with room_on_disk(self.root):
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


def _etag(path: Path) -> str:
    """The digest of what is small enough to be compared and swapped; the file's identity for what is large."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if status.st_size > BLOCK:
            return f"{status.st_size}-{status.st_mtime_ns}-{status.st_ino}"
        return hashlib.sha256(file.read()).hexdigest()


def _copy_whole(source: BinaryIO, path: Path) -> str:
    """Copy beside, flush to the disk, replace; returns the SHA-256 of what was copied."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as part:
        try:
            while block := source.read(BLOCK):
                digest.update(block)
                part.write(block)
            part.flush()
            os.fsync(part.fileno())
            os.replace(part.name, path)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
    return digest.hexdigest()
