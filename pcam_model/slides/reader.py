"""The protocol of slide readers."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pcam_model.slides.geometry import Level, Region

Pixels = NDArray[np.uint8]


class SlideReader(Protocol):
    """An open slide; its methods may be called from several threads."""

    vendor: str
    """The scanner's vendor, or the kind of file."""
    levels: tuple[Level, ...]
    """From the finest, which is level 0, to the coarsest."""
    mpp: float | None
    """Microns per pixel of level 0 as the file tells them; None where it does not."""

    def read(self, level: Level, region: Region) -> Pixels:
        """The pixels (H, W, 3), uint8, of a region of whole pixels on the level's grid; white outside of the slide.

        Raises:
            SourceError: the file is damaged.
            ValueError: the region is on another grid.
        """

    def close(self) -> None:
        """Close the file."""
