"""Folders that are built under a temporary name and then renamed, so that readers see them complete or not at all."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pcam_model.core.files import fsync_dir
from pcam_model.core.locks import file_lock


@contextmanager
def build_dir(
    target: Path, is_complete: Callable[[Path], bool], *, part: Path | None = None, resume: bool = False
) -> Iterator[Path | None]:
    """The folder to build `target` in, renamed to it at the end of the block; None where `target` is complete already.

    One process builds at a time, under a lock that ends with the process; a second one waits, and gets None.

    Args:
        target: the folder to make; one that is there but not complete is removed first.
        is_complete: whether a folder holds all that it should.
        part: the temporary folder, on the same file system; by default `.<name>.part` beside the target.
        resume: whether what an interrupted builder left in `part` is kept, also when this block raises.
    """
    part = part or target.with_name(f".{target.name}.part")
    with file_lock(part.with_name(f"{part.name}.lock"), remove=True):
        if is_complete(target):
            shutil.rmtree(part, ignore_errors=True)
            yield None
            return
        if not resume:
            shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)  # now, not at the end: its room on the disk may be needed
        part.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        except BaseException:
            if not resume:
                shutil.rmtree(part, ignore_errors=True)
            raise
        fsync_dir(part)
        part.replace(target)
        fsync_dir(target.parent)
