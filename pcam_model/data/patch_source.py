"""What a source of patches is to those who read it."""

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

import pandas as pd

from pcam_model.data.image import Patch, PatchError

T = TypeVar("T")


class PatchSource(Protocol):
    """A table of patches (id, label, slide, origin) and the pixels of each row."""

    table: pd.DataFrame
    max_threads: int = 256
    """How many threads may read at once, where there are as many cores."""

    def close(self) -> None:
        """Close open files."""

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
        raise NotImplementedError

    def patches(self, rows: Sequence[int]) -> list[Patch | PatchError]:
        """The patch in each of these rows, or why there is none. Thread-safe."""
        return [patch_or_error(self.patch, row) for row in rows]


def patch_or_error(read: Callable[[T], Patch], item: T) -> Patch | PatchError:
    """What `read` returns or, where it is a PatchError, raises."""
    try:
        return read(item)
    except PatchError as error:
        return error
