"""The scale at which a model is run over a slide: the slide's pixel size, and the level that is read."""

from typing import NamedTuple

from pcam_model.core.errors import SourceError
from pcam_model.core.log import log
from pcam_model.core.pixel_size import MAX_MISMATCH, relative_difference
from pcam_model.slides.geometry import Grid, Level
from pcam_model.slides.reader import SlideReader

SNAP = 0.02
"""A level this near to the model's scale, or a whole fraction of it, is taken as it is rather than resampled."""


class SlideScale(NamedTuple):
    """How a slide is read for a model."""

    mpp: float
    """Microns per pixel of level 0."""
    mpp_source: str
    """Where that comes from: `slide`, or the setting that gave it, as `--mpp`."""
    level: Level
    """The level that is read."""
    grid: Grid
    """The grid of the patches' pixels, to which the level is resampled."""

    @property
    def patch_mpp(self) -> float:
        """Microns per pixel of the patches."""
        return self.mpp * self.grid.downsample


def slide_scale(
    reader: SlideReader, name: str, model_mpp: float, mpp: float | None = None, setting: str = "--mpp"
) -> SlideScale:
    """The scale of a slide, at `mpp` microns per pixel where they are given by `setting`, for a model of `model_mpp`.

    Raises:
        SourceError: the slide does not tell its pixel size, and none is given.
    """
    if mpp is None and reader.mpp is None:
        raise SourceError(
            f"{name}: the slide does not tell its pixel size, neither as a property nor as TIFF resolution; give the "
            f"microns per pixel of its finest level, as in {_example(setting)}"
        )
    if mpp and reader.mpp and relative_difference(mpp, reader.mpp) > MAX_MISMATCH:
        log.warning("%s: %s %g is used, though the slide tells %.4g microns per pixel", name, setting, mpp, reader.mpp)
    size = mpp or reader.mpp or model_mpp
    level, grid = choose_level(reader.levels, model_mpp / size)
    scale = SlideScale(size, setting if mpp else "slide", level, grid)
    if level.grid.downsample * size > model_mpp * (1 + MAX_MISMATCH):
        log.warning(
            "%s: its finest level has %.4g microns per pixel, the model's patches have %.4g; it is enlarged, and "
            "probabilities may be off", name, size, model_mpp,
        )  # fmt: skip
    return scale


def _example(setting: str) -> str:
    """How a setting is given: an option, or a key of the config."""
    return f"{setting} 0.25" if setting.startswith("--") else f"{setting}=0.25"


def choose_level(levels: tuple[Level, ...], downsample: float) -> tuple[Level, Grid]:
    """The coarsest level that is not coarser than a grid of this downsample, and that grid.

    Where the grid is within 2 % of a whole multiple of the level, it is that multiple: pixels are then taken as they
    are, or averaged in squares. The finest level is taken where all are coarser.
    """
    fine = [level for level in levels if level.grid.downsample <= downsample * (1 + SNAP)]
    level = max(fine or levels[:1], key=lambda level: level.grid.downsample)
    ratio = downsample / level.grid.downsample
    if abs(ratio / max(round(ratio), 1) - 1) <= SNAP:
        return level, Grid(level.grid.downsample * max(round(ratio), 1))
    return level, Grid(downsample)
