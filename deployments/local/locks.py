"""Locks between processes that end with their holder, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def take(path: Path, *, shared: bool = False, wait: bool = True) -> IO[bytes] | None:
    """Hold the lock until the returned file is closed; None where it is taken and we do not wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("ab")
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        file.close()
        return None
    except BaseException:
        file.close()
        raise
    return file


def is_free(path: Path, *, shared: bool = False) -> bool:
    """Could the lock be taken just now?"""
    if (file := take(path, shared=shared, wait=False)) is None:
        return False
    file.close()
    return True


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Alone inside."""
    file = take(path)
    assert file is not None
    with file:
        yield
