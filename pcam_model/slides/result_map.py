"""The map of probabilities of a slide's result, read from its table."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pcam_model.core.errors import SourceError
from pcam_model.data.image import PATCH_SIZE
from pcam_model.slides.geometry import Grid, Size
from pcam_model.slides.probability_map import ProbabilityMap
from pcam_model.slides.records import TABLE_FILE, SlideResult
from pcam_model.slides.tiling import make_tiling


def read_map(folder: Path, result: SlideResult) -> ProbabilityMap:
    """The probabilities of a result by row and column.

    Args:
        folder: of the slide's files.
        result: its record.

    Raises:
        SourceError: the table cannot be read.
    """
    grid = Grid(result.patch_mpp / result.mpp)
    tiling = make_tiling(Size(result.width, result.height), grid, result.stride, result.name)
    probabilities = ProbabilityMap.empty(tiling)
    try:
        table = pq.read_table(folder / TABLE_FILE)
        x, y, values = (table[name].to_numpy() for name in ("x", "y", "probability"))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise SourceError(f"{folder / TABLE_FILE}: it cannot be read ({error}); predict the slide again") from error
    rows, columns = (
        np.rint((centre / grid.downsample - PATCH_SIZE / 2) / result.stride).astype(np.int64) for centre in (y, x)
    )
    probabilities.values[rows, columns] = values
    return probabilities
