"""Files below a folder, opened without following a symbolic link and without waiting for a pipe."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from io import BufferedReader
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from pcam_model.core.errors import StoreError
from pcam_model.core.files import special_kind
from pcam_model.core.log import log

# O_PATH needs no right to list the folder.
OPEN_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would be waited for


class PlainEntry(NamedTuple):
    """A file or a folder in a listing."""

    name: str
    is_dir: bool


def open_plain(root: Path, key: str) -> BufferedReader:
    """The open file at `root/key`; `root` itself may be a link.

    Raises:
        StoreError: a part of the path below `root` is a symbolic link, or the file a pipe, a socket or a device.
        OSError: it does not exist, is a folder, or may not be read.
    """
    name = PurePosixPath(key).name
    with open_parent(root, key) as folder, _named(root / key):
        _refuse_special(root / key, folder, name)
        handle = os.open(name, OPEN_FILE, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise IsADirectoryError(f"{root / key} is no file")
    return os.fdopen(handle, "rb")


def unlink_plain(root: Path, key: str) -> None:
    """Remove the file at `root/key`, where it is there, and the folders that become empty. Raises as `open_plain`."""
    with suppress(FileNotFoundError, NotADirectoryError), open_parent(root, key) as folder, _named(root / key):
        os.unlink(PurePosixPath(key).name, dir_fd=folder)
    with suppress(OSError):
        for parent in PurePosixPath(key).parents[:-1]:
            with open_parent(root, str(parent)) as folder:
                os.rmdir(parent.name, dir_fd=folder)


def require_plain(root: Path, key: str) -> None:
    """Raise StoreError where a file could not be written at `root/key` without leading through a link or to a device.

    What else stands in the way of writing is left to the write itself.
    """
    with suppress(OSError), open_parent(root, key) as folder:
        _refuse_special(root / key, folder, PurePosixPath(key).name)


def plain_entries(root: Path, prefix: str) -> list[PlainEntry]:
    """The visible files and folders in the folder `root/prefix`, where `prefix` is empty or ends with `/`.

    Links, pipes and devices are left out with a warning. The list is empty where there is no such folder.
    """
    try:
        with open_parent(root, f"{prefix}name") as parent:
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):  # also where it was deleted meanwhile
        return []
    try:
        with os.scandir(folder) as entries:
            return [entry for each in entries if (entry := _plain_entry(each, root / prefix)) is not None]
    finally:
        os.close(folder)


def plain_keys(root: Path, prefix: str = "") -> Iterator[str]:
    """The keys of all visible files below the folder `root/prefix`; see `plain_entries`."""
    for entry in plain_entries(root, prefix):
        if entry.is_dir:
            yield from plain_keys(root, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


@contextmanager
def open_parent(root: Path, key: str) -> Iterator[int]:
    """A descriptor of the folder that `root/key` is in, for `dir_fd`. Raises as `open_plain`."""
    folder, path = os.open(root, OPEN_FOLDER & ~os.O_NOFOLLOW), root
    try:
        for part in PurePosixPath(key).parts[:-1]:
            path /= part
            with _named(path):
                _refuse_special(path, folder, part)
                child = os.open(part, OPEN_FOLDER, dir_fd=folder)
            os.close(folder)
            folder = child
        yield folder
    finally:
        os.close(folder)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of the system with the whole path in place of the name that is relative to `dir_fd`."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def _refuse_special(path: Path, folder: int, name: str) -> None:
    """Raise StoreError where `name` in the open folder is neither a plain file nor a folder."""
    if kind := special_kind(os.stat(name, dir_fd=folder, follow_symlinks=False)):
        raise StoreError(f"{path} is {kind}, and a store has plain files and folders only; {_remedy(kind)}")


def _plain_entry(entry: os.DirEntry[str], folder: Path) -> PlainEntry | None:
    """The entry of a listing; None where it is hidden, gone, or neither a plain file nor a folder."""
    if entry.name.startswith("."):
        return None
    if (is_dir := entry.is_dir(follow_symlinks=False)) or entry.is_file(follow_symlinks=False):
        return PlainEntry(entry.name, is_dir)
    with suppress(FileNotFoundError):
        _warn_left_out(folder / entry.name, special_kind(entry.stat(follow_symlinks=False)))
    return None


@cache
def _warn_left_out(path: Path, kind: str) -> None:
    log.warning("%s is %s, which a store does not have, and is left out; %s", path, kind, _remedy(kind))


def _remedy(kind: str) -> str:
    return "put what it points to in its place, or remove it" if "link" in kind else "remove it"
