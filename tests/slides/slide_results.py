"""Results of slides as `pcam slides` writes them, from maps that are made up."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pcam_model.slides.geometry import Grid
from pcam_model.slides.patch_stream import PatchPredictions
from pcam_model.slides.probability_map import ProbabilityMap, TableWriter
from pcam_model.slides.records import RECORD_FILE, TABLE_FILE, SlideResult
from pcam_model.slides.scores import slide_scores
from pcam_model.slides.tiling import Tiling


def write_result(
    out: Path, name: str, values: NDArray[np.float32], model: str = "made", downsample: float = 4.0
) -> SlideResult:
    """Write the result of a slide at 0.972 microns per pixel of its patches, with probabilities (rows, columns)."""
    folder = out / name
    folder.mkdir(parents=True)
    tiling = Tiling(Grid(downsample), 32, *values.shape)
    probabilities, mpp = ProbabilityMap(tiling, values), 0.972 / downsample
    rows, columns = np.nonzero(~np.isnan(values))
    with TableWriter(folder / TABLE_FILE, tiling, {}) as writer:
        writer.add(PatchPredictions(rows, columns, values[rows, columns]))
    height, width = (round((32 * (count - 1) + 96) * downsample) for count in values.shape)
    result = SlideResult(
        name=name, path=f"/slides/{name}.tif", key="key", vendor="generic-tiff", width=width, height=height, mpp=mpp,
        mpp_source="slide", level=0, patch_mpp=0.972, stride=32, model=model, model_mpp=0.972, threshold=0.5, tta=False,
        backend="torch", precision="float32", patches=len(rows), tissue_mm2=None, seconds=1.0,
        scores=slide_scores(probabilities, 0.5, mpp),
        files={TABLE_FILE: (folder / TABLE_FILE).stat().st_size},
    )  # fmt: skip
    (folder / RECORD_FILE).write_text(result.model_dump_json())
    return result
