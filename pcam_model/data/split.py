"""The division of a pack into train, valid and test, with a report of what the splits share."""

import hashlib
import json
from pathlib import Path
from typing import cast, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError
from pcam_model.core.files import write_atomic
from pcam_model.core.parsing import parse_json
from pcam_model.core.schema import Record
from pcam_model.core.splits import SPLITS, SplitName
from pcam_model.core.write_guard import write_guard
from pcam_model.data.leakage import (
    ClassCounts,
    SplitKind,
    check_leakage,
    count_classes,
)
from pcam_model.data.pack import Pack, load_table
from pcam_model.data.read_table import read_table
from pcam_model.data.split_assignment import SplitConfig
from pcam_model.data.split_division import divide
from pcam_model.data.split_meaning import describe_split

TABLE, RECORD = "split.parquet", "split.json"
REMEDY = "delete the folder and split again"


class Split(Record):
    """A division of a pack, with what figures on it mean."""

    path: str
    """The folder of split.parquet (id, row of the pack, split, and cluster where there are any) and split.json."""
    digest: str
    """SHA-256 over the sorted ids and their splits."""
    kind: SplitKind
    """How the patches were divided."""
    counts: dict[str, ClassCounts]
    """Patches of each class ("0", "1") in each split."""
    meaning: str
    """What a figure on this split says, and what it does not."""


def make_split(pack: Pack, config: SplitConfig, folder: Path) -> Split:
    """Divide the pack's labelled patches; writes split.parquet and split.json into `folder`.

    It does not depend on the order of the rows. Raises SplitError where the patches cannot be divided like this.
    """
    rows = load_table(pack)
    rows = rows[rows["label"].notna()].rename_axis("row").reset_index()
    rows = rows.sort_values("id", ignore_index=True).astype({"label": int})
    division = divide(pack, rows, config)
    rows, splits, kind = division.rows, division.splits, division.kind
    counts = count_classes(rows, splits)
    leakage = check_leakage(rows, splits, kind)
    split = Split(
        path=str(folder),
        digest=_digest(rows["id"], splits),
        kind=kind,
        counts=counts,
        meaning=describe_split(kind, leakage, division.clusters, division.no_clusters),
    )
    record = {
        **split.model_dump(exclude={"path"}),
        "pack": pack.digest,
        "config": config.model_dump(),
        "clusters": division.clusters.model_dump() if division.clusters else None,
        "leakage": leakage.model_dump(),
    }
    columns = ["id", "row", *(["cluster"] if division.clusters else [])]
    with write_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / TABLE, rows[columns].assign(split=splits).to_parquet(index=False))
        write_atomic(folder / RECORD, json.dumps(record, indent=1).encode())
    return split


def read_split_table(folder: Path) -> pd.DataFrame:
    """Columns id, row (of the pack) and split, sorted by id; `attrs["kind"]` is the SplitKind."""
    table = read_table(folder / TABLE, ["id", "row", "split"], remedy=REMEDY, error=SplitError)
    table.attrs["kind"] = _read_kind(folder / RECORD)
    return table.sort_values("id", ignore_index=True)


def _read_kind(path: Path) -> SplitKind:
    """The kind in a split.json; the other keys are for people. Raises SplitError where it is damaged."""
    try:
        kind = parse_json(path.read_bytes(), path, remedy=REMEDY, error=SplitError).get("kind")
    except OSError as error:
        raise SplitError(f"{path} cannot be read ({error.strerror}); {REMEDY}") from error
    for known in get_args(SplitKind):
        if kind == known:
            return cast(SplitKind, known)
    raise SplitError(f"{path}: its kind is {kind!r}; expected one of {', '.join(get_args(SplitKind))}; {REMEDY}")


def split_rows(split: Split, pack_table: pd.DataFrame | None = None) -> dict[SplitName, NDArray[np.int64]]:
    """The rows of the pack in each split, ascending; test may be empty.

    Raises SplitError where the file is not the split's own, or its rows are not those of `pack_table`.
    """
    folder = Path(split.path)
    table = read_split_table(folder)
    digest = _digest(table["id"], table["split"].to_numpy())
    if digest != split.digest:
        raise SplitError(
            f"{folder}: {TABLE} has the digest {digest[:12]}, expected {split.digest[:12]}; it is another split or was "
            "changed; delete the folder and split again"
        )
    if pack_table is not None and not np.array_equal(table["id"].to_numpy(), _ids(pack_table, table["row"].to_numpy())):
        raise SplitError(
            f"{folder}: {TABLE} divides other patches than the pack's; split again, under another run name"
        )
    table = table.sort_values("row")
    return {name: table["row"][table["split"] == name].to_numpy(np.int64) for name in SPLITS}


def _digest(ids: "pd.Series[str]", splits: NDArray[np.str_]) -> str:
    """SHA-256 over ids, which are sorted, and their splits."""
    return hashlib.sha256("".join(f"{i} {s}\n" for i, s in zip(ids, splits, strict=True)).encode()).hexdigest()


def _ids(pack_table: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    """The pack's ids in these rows; none where it does not have all of them."""
    has_all = not len(rows) or rows.max() < len(pack_table)
    return pack_table["id"].to_numpy(dtype=object)[rows if has_all else []]


__all__ = ["Split", "SplitConfig", "make_split", "read_split_table", "split_rows"]
