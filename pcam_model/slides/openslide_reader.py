"""Slides read by OpenSlide."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openslide

from pcam_model.core.errors import SourceError
from pcam_model.slides.geometry import LEVEL_0, Grid, Level, Region, Size, require_grid
from pcam_model.slides.reader import Pixels

WHITE = (255, 255, 255)
MICRONS_PER_UNIT = {"centimeter": 1e4, "inch": 2.54e4}
PLAUSIBLE_MPP = (0.01, 20.0)  # 72 dots an inch, which many programs write, would be 353
MAX_ANISOTROPY = 1.2


class OpenSlideReader:
    """A `SlideReader` over OpenSlide."""

    def __init__(self, path: Path) -> None:
        """Open a slide. Raises SourceError where OpenSlide cannot read it."""
        self.path = path
        try:
            self._slide = openslide.OpenSlide(path)
        except (openslide.OpenSlideError, OSError) as error:
            raise SourceError(f"{path}: OpenSlide cannot read it ({_reason(error)})") from error
        properties = self._slide.properties
        self.vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        sizes = zip(self._slide.level_dimensions, self._slide.level_downsamples, strict=True)
        self.levels = tuple(
            Level(index, Size(width, height, Grid(downsample) if index else LEVEL_0))
            for index, ((width, height), downsample) in enumerate(sizes)
        )
        self.mpp = read_mpp(properties)
        colour = properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)
        self._background = np.array(bytes.fromhex(colour) if colour else WHITE, np.uint16)

    def read(self, level: Level, region: Region) -> Pixels:
        """See `SlideReader`."""
        require_grid(region.grid, level.grid)
        corner = region.origin.on(LEVEL_0)
        size = (int(region.size.width), int(region.size.height))
        try:
            image = self._slide.read_region((round(corner.x), round(corner.y)), level.index, size)
        except (openslide.OpenSlideError, OSError) as error:
            raise SourceError(
                f"{self.path}: level {level.index} cannot be read at {round(corner.x)}, {round(corner.y)} "
                f"({_reason(error)}); the file is damaged, copy it again"
            ) from error
        return self._opaque(np.asarray(image))

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def _opaque(self, pixels: Pixels) -> Pixels:
        """RGBA over the slide's background: where nothing was scanned, the pixels are transparent."""
        colours, alpha = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
        if alpha.min(initial=255) == 255:
            return np.ascontiguousarray(colours)
        blended = (colours * alpha + self._background * (255 - alpha) + 127) // 255
        return blended.astype(np.uint8)


def read_mpp(properties: Mapping[str, str]) -> float | None:
    """Microns per pixel by OpenSlide's properties, else by the TIFF's resolution; None where neither tells them."""
    pair = _numbers(properties, openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y)
    if pair is None:
        unit = MICRONS_PER_UNIT.get(properties.get("tiff.ResolutionUnit", ""))
        resolution = _numbers(properties, "tiff.XResolution", "tiff.YResolution")
        pair = (unit / resolution[0], unit / resolution[1]) if unit and resolution else None
    if pair is None or max(pair) / min(pair) > MAX_ANISOTROPY:
        return None
    mpp = sum(pair) / 2
    return mpp if PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1] else None


def _numbers(properties: Mapping[str, str], x: str, y: str) -> tuple[float, float] | None:
    try:
        pair = (float(properties[x]), float(properties[y]))
    except (KeyError, ValueError):
        return None
    return pair if min(pair) > 0 else None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
