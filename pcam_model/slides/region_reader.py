"""Regions of a slide at the scale of a model."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from pcam_model.slides.geometry import Grid, Level, Region
from pcam_model.slides.reader import Pixels, SlideReader

WHOLE = 1e-6


class ScaledReader(NamedTuple):
    """Reads regions of a grid from a level that is as fine or finer; may be called from several threads."""

    reader: SlideReader
    level: Level
    grid: Grid

    @property
    def ratio(self) -> float:
        """Pixels of the level per pixel of the grid."""
        return self.grid.downsample / self.level.grid.downsample

    def read(self, region: Region) -> Pixels:
        """The pixels (H, W, 3), uint8, of a region of whole pixels on the grid.

        They do not depend on which region they are read with. Raises SourceError where the file is damaged.
        """
        factor = round(self.ratio)
        source = region.on(self.level.grid)
        if factor >= 1 and abs(self.ratio / factor - 1) < WHOLE:
            pixels = self.reader.read(self.level, source.rounded())
            return pixels if factor == 1 else np.asarray(Image.fromarray(pixels).reduce(factor))
        return self._resample(source, (int(region.size.width), int(region.size.height)))

    def _resample(self, source: Region, size: tuple[int, int]) -> Pixels:
        """Resample with a margin as wide as the filter, so that no pixel depends on the region's edge."""
        outer = source.covering(margin=int(2 * max(self.ratio, 1)) + 2)
        left, top = source.origin.x - outer.origin.x, source.origin.y - outer.origin.y
        box = (left, top, left + source.size.width, top + source.size.height)
        image = Image.fromarray(self.reader.read(self.level, outer))
        method = Image.Resampling.HAMMING if self.ratio > 1 else Image.Resampling.BICUBIC
        return np.asarray(image.resize(size, method, box=box))
