"""Locks between processes; a lock ends with the process that holds it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pcam_model.core.errors import BusyError, UnwritableError
from pcam_model.core.files import special_kind

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}  # of a network file system without a lock service


@contextmanager
def file_lock(path: Path, timeout: float = -1, remove: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; its parent folder is made.

    Args:
        path: the lock file, as in `folder / ".lock"`.
        timeout: seconds to wait for another holder; -1: for ever.
        remove: whether the file is removed before the lock is released, else it stays.

    Raises:
        BusyError: another process holds it for longer than `timeout`.
        UnwritableError: the file system has no locks, or `path` is a link, a pipe or a device, which is not opened.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_special(path)
    try:
        with FileLock(path, timeout=timeout):
            try:
                yield
            finally:
                if remove:  # a waiter that gets the lock of a file that was removed locks the new one instead
                    path.unlink(missing_ok=True)
    except Timeout:
        raise BusyError(f"another process is at work in {path.parent}; wait for it, or end it, and try again") from None
    except OSError as error:
        if error.errno not in NO_LOCKS or error.filename:
            raise
        raise UnwritableError(
            f"{path.parent}: its file system has no locks ({os.strerror(error.errno)}); use a folder on a local disk, "
            "or mount this one with locks",
            path.parent,
        ) from error


def _refuse_special(path: Path) -> None:
    try:
        kind = special_kind(path.lstat())
    except FileNotFoundError:
        return
    if kind:
        raise UnwritableError(f"{path} is {kind}, expected a lock file; remove it", path.parent)
