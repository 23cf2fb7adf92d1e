"""What a source of patches is to those who read it."""

from typing import Protocol

import pandas as pd

from pcam_model.data.image import Patch


class PatchSource(Protocol):
    """A table of patches (id, label, slide, origin) and the pixels of each row."""

    table: pd.DataFrame

    def close(self) -> None:
        """Close open files."""

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
