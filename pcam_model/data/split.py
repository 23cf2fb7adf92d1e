"""Who is train, who valid, who test; with the proof that the sides share no pixels and, where asked, no slide."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError
from pcam_model.core.files import disk_space_guard, write_atomic
from pcam_model.core.schema import Record
from pcam_model.data.leakage import SIDES, Kind, check_leakage, counted, meaning, refuse_one_class
from pcam_model.data.pack import Pack, table
from pcam_model.data.split_assignment import SplitConfig, assign, best_kind

TABLE, RECORD = "split.parquet", "split.json"


class Split(Record):
    """A division of a pack, with what figures on it mean."""

    path: str
    """The folder of split.parquet (id, row of the pack, side) and split.json."""
    digest: str
    """SHA-256 over the sorted ids and their sides."""
    kind: Kind
    """How the patches were divided."""
    counts: dict[str, dict[str, int]]
    """Patches of each class ("0", "1") on each side."""
    meaning: str
    """What a figure on this split says, and what it does not."""


def make_split(pack: Pack, config: SplitConfig, folder: Path) -> Split:
    """Divide the pack's labelled patches and write the division and its proof into `folder`.

    Does not depend on the order of the rows. Raises SplitError where the patches cannot be divided so.
    """
    rows = table(pack)
    rows = rows[rows["label"].notna()].rename_axis("row").reset_index()
    rows = rows.sort_values("id", ignore_index=True).astype({"label": int})
    kind = config.kind if config.kind != "auto" else best_kind(rows)
    side = assign(rows, kind, config)
    counts = counted(rows, side)
    refuse_one_class(counts, kind)
    proof = check_leakage(rows, side, kind)
    split = Split(
        path=str(folder),
        digest=_digest(rows["id"], side),
        kind=kind,
        counts=counts,
        meaning=meaning(kind, proof),
    )
    with disk_space_guard(folder):
        folder.mkdir(parents=True, exist_ok=True)
        content = rows[["id", "row"]].assign(side=side).to_parquet(index=False)
        write_atomic(folder / TABLE, content)
        written = {
            **split.model_dump(exclude={"path"}),
            "pack": pack.digest,
            "config": config.model_dump(),
            "proof": proof.model_dump(),
        }
        write_atomic(folder / RECORD, json.dumps(written, indent=1).encode())
    return split


def read_sides(folder: Path) -> pd.DataFrame:
    """A split's table: id, row (of the pack) and side, by id; `attrs["kind"]` says how it was divided."""
    try:
        found = pd.read_parquet(folder / TABLE).sort_values("id", ignore_index=True)
        found.attrs["kind"] = json.loads((folder / RECORD).read_bytes())["kind"]
        return found[["id", "row", "side"]]
    except (OSError, ValueError, KeyError) as error:
        raise SplitError(
            f"{folder}: no whole split lies here ({type(error).__name__}); delete the folder and split again"
        ) from error


def sides(split: Split, people: pd.DataFrame | None = None) -> dict[str, NDArray[np.int64]]:
    """The rows of the pack on each side (train, valid, test), ascending; test may be empty.

    Raises SplitError where the file is not the split's own, or its rows are not those of `people`, the pack's table.
    """
    folder = Path(split.path)
    found = read_sides(folder)
    digest = _digest(found["id"], found["side"].to_numpy())
    if digest != split.digest:
        raise SplitError(
            f"{folder}: {TABLE} has the digest {digest[:12]}, expected {split.digest[:12]}; it is another split or was "
            "changed; delete the folder and split again"
        )
    if people is not None and not np.array_equal(found["id"].to_numpy(), _ids(people, found["row"].to_numpy())):
        raise SplitError(
            f"{folder}: {TABLE} divides other patches than the pack's; split again, under another run name"
        )
    found = found.sort_values("row")
    return {side: found["row"][found["side"] == side].to_numpy(np.int64) for side in SIDES}


def _digest(ids: "pd.Series[str]", side: NDArray[np.str_]) -> str:
    """SHA-256 over ids, which are sorted, and their sides."""
    return hashlib.sha256("".join(f"{i} {s}\n" for i, s in zip(ids, side, strict=True)).encode()).hexdigest()


def _ids(people: pd.DataFrame, rows: NDArray[np.int64]) -> NDArray[np.object_]:
    """The pack's ids in these rows; none where it has no such rows."""
    retry_policy = not len(rows) or rows.max() < len(people)
    return people["id"].to_numpy(dtype=object)[rows if retry_policy else []]


__all__ = ["Split", "SplitConfig", "make_split", "read_sides", "sides"]
