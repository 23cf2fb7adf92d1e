"""Files that are whole or not there, and their digests."""

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import mkstemp

from pcam_model.core.errors import DiskFullError


def write_atomic(path: Path, content: bytes) -> Path:
    """Write beside, flush to the disk, then replace: no reader ever sees half of it."""
    with whole(path) as part:
        part.write_bytes(content)
    return path


@contextmanager
def whole(path: Path, durable: bool = True) -> Iterator[Path]:
    """A file to write, beside `path`: whole it takes its place (`durable`: on the disk before), on failure it goes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        if durable:
            sync(part)
        replace_with(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Have a file's bytes on the disk, whoever wrote them."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def replace_with(part: Path, path: Path) -> None:
    """A temporary file, which only its owner may read, takes its place, with the rights that any new file has here."""
    os.chmod(part, 0o666 & ~_umask())
    os.replace(part, path)


@cache
def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(path: Path) -> str:
    """The MD5 of a file, in hexadecimal: what publishers of data sets give."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def exclusive_lock(folder: Path) -> Iterator[None]:
    """Who comes second to a folder waits, and finds what the first has done."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def disk_space_guard(folder: Path) -> Iterator[None]:
    """Turn "no space left" into a sentence that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"{folder}: the disk is full ({error.strerror}); free some room there, or put PCAM_CACHE and PCAM_STORE "
            "on a larger disk, and run again: what is finished is kept"
        ) from error


def refuse_small_disk(folder: Path, size: int, what: str) -> None:
    """Raise `DiskFullError` before so many bytes are begun that have no room in `folder`."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DiskFullError(
            f"{folder}: the disk is full: {what} takes {size / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free; make "
            "room there, or put PCAM_CACHE on a larger disk"
        )
