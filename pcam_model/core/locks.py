"""Locks between processes; a lock ends with the process that holds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from pcam_model.core.errors import BusyError


@contextmanager
def file_lock(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock file `path`, which stays; its parent folder is made.

    Args:
        path: the lock file, as in `folder / ".lock"`.
        timeout: seconds to wait for another holder; -1: for ever.

    Raises:
        BusyError: another process holds it for longer than `timeout`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=timeout):
            yield
    except Timeout:
        raise BusyError(f"another process is at work in {path.parent}; wait for it, or end it, and try again") from None
