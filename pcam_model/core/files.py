"""Atomic file writes, and digests."""

import hashlib
import os
import re
import shutil
import socket
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from tempfile import mkstemp

import psutil

from pcam_model.core.write_guard import write_guard

TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.(?P<host>[0-9a-f]{8})-(?P<pid>[0-9]+)")
FOREIGN_S = 86_400.0


def write_atomic(path: Path, content: bytes) -> Path:
    """Write a file through a temporary one beside it, which is flushed to the disk and then renamed.

    Raises:
        UnwritableError: its folder cannot be written to.
        DiskFullError: the disk is full.
    """
    with write_guard(path.parent), atomic_file(path) as part:
        part.write_bytes(content)
    return path


@contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary file beside `path` to write; renamed to it at the end of the block, removed if the block raises.

    What an earlier writer of the same file, whose process was killed, had left when this process first wrote into the
    folder is removed.

    Args:
        path: the file to make or replace; its parent folder is made.
        durable: whether the bytes are flushed to the disk before the rename, and the rename after it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for earlier in _temporary_files(path.parent):
        if earlier.name.startswith(f".{path.name}."):
            _remove_if_left(earlier)
    handle, name = mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=f".{_host()}-{os.getpid()}")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        if durable:
            fsync_file(part)
        replace_file(part, path)
        if durable:
            fsync_dir(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sweep_temporary(folder: Path) -> None:
    """Remove the temporary files that `atomic_file` left at any depth below a folder when its process was killed.

    A file of another machine is left for a day, since its writer cannot be asked.
    """
    for path in sorted(folder.rglob(".*")):
        _remove_if_left(path)


@lru_cache(maxsize=1024)
def _temporary_files(folder: Path) -> tuple[Path, ...]:
    """The temporary files in a folder at its first use: a listing for each write is too much for large folders."""
    return tuple(path for path in folder.glob(".*") if TEMPORARY.fullmatch(path.name))


def _remove_if_left(path: Path) -> None:
    """Remove a file that is a temporary one of `atomic_file` without a writer."""
    with suppress(OSError):
        if (found := TEMPORARY.fullmatch(path.name)) and path.is_file() and not path.is_symlink():
            written = path.stat().st_mtime
            mine = found["host"] == _host()
            if not _is_alive(int(found["pid"]), written) if mine else time.time() - written > FOREIGN_S:
                path.unlink()


def _is_alive(pid: int, since: float) -> bool:
    """Whether a process runs that was there at a time: a later one has only taken over the number."""
    try:
        return psutil.Process(pid).create_time() <= since + 1
    except psutil.Error:
        return False


@cache
def _host() -> str:
    """A short name of this machine for a file's name."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def save_blocks(blocks: Iterable[bytes], path: Path, durable: bool = False) -> str:
    """Write blocks of bytes to a file atomically; returns their SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    with atomic_file(path, durable) as part, part.open("wb") as file:
        for block in blocks:
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def fsync_file(path: Path) -> None:
    """Flush a file's bytes to the disk, whoever wrote them."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def fsync_dir(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it outlives a power cut; where its system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def replace_file(temporary: Path, path: Path) -> None:
    """Rename a temporary file to `path`, with the access rights of a new file under the process's umask."""
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(path)


def special_kind(status: os.stat_result) -> str:
    """What a file is that is neither a plain file nor a folder, as in "a symbolic link"; empty where it is one."""
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return ""
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(status.st_mode), "a device")


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system has no links; atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(source, part)
        except FileNotFoundError:
            raise
        except OSError:
            shutil.copyfile(source, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


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
