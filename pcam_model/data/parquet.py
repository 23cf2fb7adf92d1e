"""Parquet shards as on Hugging Face: a column of image files, struct{bytes, path} or bytes, and a column of labels."""

import errno
import json
import os
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pcam_model.core.errors import SourceError
from pcam_model.core.log import log
from pcam_model.data.file_kinds import describe_wrong_content
from pcam_model.data.file_names import split_of
from pcam_model.data.image import Decoder, Patch, PatchError
from pcam_model.data.label_values import label_value
from pcam_model.data.patch_source import PatchSource

BATCH_ROWS = 128
BUFFER_BYTES = 1 << 20  # read at once; without it pyarrow reads a row group's whole column
LABEL_COLUMNS = ("label", "labels", "target", "y")
IMAGE_COLUMNS = ("image", "images", "img", "patch", "patches", "x")


class ParquetShard:
    """The images of one file, read in batches of rows; memory does not grow with the file."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises SourceError where it is damaged, or holds no images."""
        self.path = path
        try:
            self.file = pq.ParquetFile(path, buffer_size=BUFFER_BYTES)
        except PermissionError as error:
            reason = os.strerror(error.errno or errno.EACCES)  # Arrow's own text names the file again
            raise SourceError(f"{path}: it cannot be read ({reason}); make it readable") from error
        except (pa.ArrowException, OSError) as error:
            damaged = f"it is no whole parquet file ({_first_line(error)}); download it again"
            raise SourceError(f"{path}: {describe_wrong_content(path) or damaged}") from error
        self.column = self._image_column()
        self.count: int = self.file.metadata.num_rows
        groups = [self.file.metadata.row_group(i).num_rows for i in range(self.file.num_row_groups)]
        self.starts = np.cumsum([0, *groups])
        self._lock = threading.Lock()
        # Threads read batches ahead of each other, out of order by as many as there are threads and batches in hand.
        self._max_cached = 2 * (os.cpu_count() or 1) + 8
        self._cache: dict[int, list[bytes]] = {}
        self._batches: Iterator[list[bytes]] = iter(())
        self._next_start = -1

    def _image_column(self) -> str:
        schema = self.file.schema_arrow
        names = [field.name for field in schema if _holds_files(field.type)]
        named = [name for name in names if name.lower() in IMAGE_COLUMNS]
        if len(names) == 1 or len(named) == 1:
            return str((named or names)[0])
        if names:
            raise SourceError(
                f"{self.path}: its columns {', '.join(names)} hold files, and which are the patches is not plain; name "
                "that column image"
            )
        raise SourceError(
            f"{self.path}: its columns are {', '.join(schema.names)}; expected one of image files (bytes, or "
            "struct{bytes, path}) and a label; give another path"
        )

    def ids(self) -> list[str]:
        """The stems of the images' own paths where each has another, else the file's stem and the row's number."""
        field = self.file.schema_arrow.field(self.column).type
        stems: list[str] = []
        if pa.types.is_struct(field) and field.get_field_index("path") >= 0:
            paths = self.file.read(columns=[f"{self.column}.path"]).column(self.column).combine_chunks().field("path")
            stems = [Path(name).stem for name in paths.to_pylist() if name]
        if len(set(stems)) == self.count:
            return stems
        return [f"{self.path.stem}-{row:06d}" for row in range(self.count)]

    def labels(self, classes: Sequence[str]) -> list[int]:
        """The labels, 0 or 1.

        Args:
            classes: names of class 0 and 1, for a column of names; empty: the usual ones.

        Raises:
            SourceError: there are none, or others.
        """
        names = [name for name in self.file.schema_arrow.names if name.lower() in LABEL_COLUMNS]
        if not names:
            raise SourceError(
                f"{self.path}: its columns are {', '.join(self.file.schema_arrow.names)}; expected one named label; "
                "rename the column that holds the labels, 0 or 1"
            )
        values = self.file.read(columns=[names[0]]).column(names[0]).to_pylist()
        by_value = self._classes_of_values(names[0], set(values), classes)
        wrong = [(row, value) for row, value in enumerate(values) if by_value[value] is None]
        if wrong:
            row, value = wrong[0]
            raise SourceError(
                f"{self.path}: the label of row {row} is {value!r} ({len(wrong):,} such rows); a label is 0 or 1; "
                "leave these rows out, or name both classes, 0 first, with source.classes"
            )
        return [label for value in values if (label := by_value[value]) is not None]

    def _classes_of_values(self, column: str, values: set[object], classes: Sequence[str]) -> dict[object, int | None]:
        """The class (0, 1 or None) of each value: by the names that `datasets` gives its numbers, which it may sort."""
        names = class_names(self.file.schema_arrow, column)
        by_number = {number: label_value(name, classes) for number, name in enumerate(names)}
        if len(names) == 2 and set(by_number.values()) == {0, 1}:
            if by_number[0] == 1:
                log.info("%s: label 0 is %s and 1 is %s there; 1 is tumour here", self.path, *names)
            return {value: by_number.get(value) if isinstance(value, int) else None for value in values}
        return {value: label_value(str(value), classes) for value in values}

    def content(self, row: int) -> bytes:
        """The bytes of the image file in this row. Raises PatchError. Thread-safe."""
        with self._lock:
            for start, batch in self._cache.items():
                if start <= row < start + len(batch):
                    return batch[row - start]
            try:
                return self._read_to(row)
            except (pa.ArrowException, OSError) as error:
                raise PatchError(f"the parquet file cannot be read there ({_first_line(error)})") from error

    def _read_to(self, row: int) -> bytes:
        """Read on to this row, from the beginning of its row group where it lies behind or in another."""
        group = int(np.searchsorted(self.starts, row, "right")) - 1
        if not self.starts[group] <= self._next_start <= row:
            self._next_start, self._batches = int(self.starts[group]), self._read_groups(group)
        for batch in self._batches:
            start, self._next_start = self._next_start, self._next_start + len(batch)
            self._cache[start] = batch
            for old in list(islice(self._cache, max(0, len(self._cache) - self._max_cached))):
                del self._cache[old]
            if row < self._next_start:
                return batch[row - start]
        raise PatchError("the parquet file ends before it")

    def _read_groups(self, first: int) -> Iterator[list[bytes]]:
        """Batches of image files from a row group on."""
        groups = list(range(first, self.file.num_row_groups))
        for batch in self.file.iter_batches(BATCH_ROWS, row_groups=groups, columns=[self.column]):
            column = batch.column(0)
            values = column.field("bytes") if pa.types.is_struct(column.type) else column
            yield [value or b"" for value in values.to_pylist()]

    def close(self) -> None:
        """Close the file."""
        self._cache.clear()
        self.file.close()


def _holds_files(column: pa.DataType) -> bool:
    is_struct = pa.types.is_struct(column) and column.get_field_index("bytes") >= 0
    return bool(is_struct or pa.types.is_binary(column) or pa.types.is_large_binary(column))


def has_image_column(path: Path) -> bool:
    """Whether a parquet file has a column of files; also where it is damaged, which opening it says."""
    try:
        return any(_holds_files(field.type) for field in pq.read_schema(path))
    except (pa.ArrowException, OSError):
        return True


def class_names(schema: pa.Schema, column: str) -> list[str]:
    """The names of a column's classes by number, as the library `datasets` writes them; empty where it did not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return [str(name) for name in features[column]["names"]]
    except (KeyError, TypeError, ValueError):
        return []


class ParquetPatches(PatchSource):
    """The patches of a parquet file, or of the shards in a folder."""

    def __init__(
        self, path: Path, files: Sequence[Path], *, with_labels: bool = True, classes: Sequence[str] = ()
    ) -> None:
        """Open the files, shards below the folder `path` or that file; `classes` as for `ParquetShard.labels`.

        Raises:
            SourceError: one is damaged, or holds no images or no labels.
        """
        self.shards = [ParquetShard(file) for file in files]
        self.starts = np.cumsum([0, *(shard.count for shard in self.shards)])
        self.decode = Decoder()
        tables = [self._table(path, shard, with_labels, classes) for shard in self.shards]
        self.table = pd.concat(tables, ignore_index=True)
        if self.table["id"].duplicated().any():
            ids = [f"{shard.path.stem}-{row:06d}" for shard in self.shards for row in range(shard.count)]
            self.table["id"] = pd.Series(ids, dtype=object)

    def _table(self, path: Path, shard: ParquetShard, with_labels: bool, classes: Sequence[str]) -> pd.DataFrame:
        name = shard.path.name if path.is_file() else shard.path.relative_to(path).as_posix()
        return pd.DataFrame(
            {
                "id": pd.Series(shard.ids(), dtype=object),
                "label": pd.array(shard.labels(classes) if with_labels else [None] * shard.count, dtype="Int8"),
                "slide": np.full(shard.count, None, object),
                "origin": pd.Series([split_of(name) or "train"] * shard.count, dtype=object),
                "file": pd.Series([name] * shard.count, dtype=object),
            }
        )

    def content(self, row: int) -> bytes:
        """The bytes of the image file in this row. Raises PatchError. Thread-safe."""
        index = int(np.searchsorted(self.starts, row, "right")) - 1
        return self.shards[index].content(row - int(self.starts[index]))

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
        return self.decode(self.content(row))

    def close(self) -> None:
        """Close the files."""
        for shard in self.shards:
            shard.close()


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
