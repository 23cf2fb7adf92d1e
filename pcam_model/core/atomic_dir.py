"""A folder that is built beside its place and then renamed: readers see it whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pcam_model.core.locks import file_lock


@contextmanager
def build_dir(
    target: Path, is_complete: Callable[[Path], bool], *, part: Path | None = None, resume: bool = False
) -> Iterator[Path | None]:
    """The folder to build `target` in, renamed to it at the end of the block; None where `target` is complete already.

    One process builds at a time; who comes second waits, and finds what the first has built.

    Args:
        target: the folder to make; replaced where it is there but not complete.
        is_complete: whether a folder holds all that it should.
        part: where it is built, on the same file system; by default `.<name>.part` beside the target.
        resume: whether what an interrupted builder left in `part` is kept, also when this block raises.
    """
    part = part or target.with_name(f".{target.name}.part")
    with file_lock(part.with_name(f"{part.name}.lock")):
        if is_complete(target):
            shutil.rmtree(part, ignore_errors=True)
            yield None
            return
        if not resume:
            shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        except BaseException:
            if not resume:
                shutil.rmtree(part, ignore_errors=True)
            raise
        shutil.rmtree(target, ignore_errors=True)
        os.replace(part, target)
