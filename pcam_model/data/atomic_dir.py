"""A folder is built beside its place and then renamed, by one builder at a time."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART = ".part"


@contextmanager
def alone(target: Path, whole: Callable[[Path], bool]) -> Iterator[Path | None]:
    """An empty folder beside the target for us alone, removed on failure; None when the target is there whole."""
    part = target.with_name(f"{target.name}{PART}")
    handle = lock(part)
    try:
        if whole(target):
            part.rmdir() if not any(part.iterdir()) else shutil.rmtree(part)
            yield None
            return
        shutil.rmtree(target, ignore_errors=True)
        for left in part.iterdir():
            left.unlink()
        yield part
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def lock(part: Path) -> int:
    """Make the folder and lock it: who was killed holds no lock, who is at work is waited for."""
    while True:
        # Path.mkdir(exist_ok=True) looks a second time, when another builder may just have renamed it.
        with suppress(FileExistsError):
            os.mkdir(part)
        try:
            handle = os.open(part, os.O_RDONLY)
        except FileNotFoundError:
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            if os.stat(part).st_ino == os.fstat(handle).st_ino:
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)
