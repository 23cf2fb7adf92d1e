"""The probabilities of a slide's patches: as a table of rows, and as a map of cells."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pcam_model.slides.geometry import LEVEL_0, Size
from pcam_model.slides.patch_stream import PatchPredictions
from pcam_model.slides.tiling import Tiling

SCHEMA = pa.schema([("x", pa.int64()), ("y", pa.int64()), ("probability", pa.float32())])
ROW_GROUP = 65_536


@dataclass(frozen=True)
class ProbabilityMap:
    """Probabilities of a slide by row and column of its tiling."""

    tiling: Tiling
    values: NDArray[np.float32]
    """(rows, columns); NaN where no patch was predicted."""

    @classmethod
    def empty(cls, tiling: Tiling) -> "ProbabilityMap":
        """A map without any prediction."""
        return cls(tiling, np.full((tiling.rows, tiling.columns), np.nan, np.float32))

    def add(self, predictions: PatchPredictions) -> None:
        """Enter predictions."""
        self.values[predictions.rows, predictions.columns] = predictions.probabilities

    def is_tumour(self, threshold: float) -> NDArray[np.bool_]:
        """Where the probability reaches the threshold: (rows, columns)."""
        return np.asarray(self.values >= threshold)  # NaN is not

    @property
    def predicted(self) -> NDArray[np.float32]:
        """The probabilities of the predicted patches, (N,)."""
        return self.values[~np.isnan(self.values)]


class TableWriter:
    """Writes probabilities.parquet: x and y, the centre of each patch in pixels of level 0, and its probability."""

    def __init__(self, path: Path, tiling: Tiling, metadata: dict[str, str]) -> None:
        """`metadata` goes into the file's schema. Use as a context."""
        self._tiling = tiling
        schema = SCHEMA.with_metadata({**metadata, "columns": "x, y: centre of the patch, pixels of level 0"})
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")
        self._pending: list[pa.RecordBatch] = []
        self._rows = 0

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        self._flush()
        self._writer.close()

    def add(self, predictions: PatchPredictions) -> None:
        """Append rows; they are written in groups of about 65,536."""
        centre = self._tiling.centre(0, 0).on(LEVEL_0)
        stride = Size(self._tiling.stride, 0, self._tiling.grid).on(LEVEL_0).width
        x = np.rint(centre.x + predictions.columns * stride).astype(np.int64)
        y = np.rint(centre.y + predictions.rows * stride).astype(np.int64)
        self._pending.append(pa.record_batch([x, y, predictions.probabilities], schema=SCHEMA))
        self._rows += len(x)
        if self._rows >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            table = pa.Table.from_batches(self._pending).replace_schema_metadata(self._writer.schema.metadata)
            self._writer.write_table(table, row_group_size=2 * ROW_GROUP)
        self._pending, self._rows = [], 0
