"""The patches of a source that are taken, and their slides."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_model.core.errors import SourceError
from pcam_model.data.csv_tables import read_slide_map


def select_rows(table: pd.DataFrame, max_patches: int | None, seed: int) -> pd.DataFrame:
    """All rows, or `max_patches` labelled ones with the classes in proportion.

    The choice is a function of the ids and the seed, whatever the rows' order.
    """
    if max_patches is None:
        return table
    labelled = table[table["label"].notna()]
    if max_patches >= len(labelled):
        return labelled
    selected: list[str] = []
    for label, count in class_counts(labelled["label"].astype(int), max_patches).items():
        ids = labelled["id"][labelled["label"] == label]
        selected += sorted(ids, key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest())[:count]
    return labelled[labelled["id"].isin(selected)]


def class_counts(labels: "pd.Series[int]", total: int) -> dict[int, int]:
    """How many patches of each class make `total` in proportion, at least one of each."""
    ones = int(np.clip(round(total * float((labels == 1).mean())), 1, total - 1))
    return {0: total - ones, 1: ones}


def add_slides(table: pd.DataFrame, slide_map: str) -> pd.DataFrame:
    """The table with the slides, and domains, of a CSV `id,wsi` or `id,wsi,domain`; unchanged for the path "".

    They are None for ids that it does not name.
    """
    if not slide_map:
        return table
    by_id = read_slide_map(Path(slide_map).expanduser())
    found = by_id.reindex(table["id"]).set_index(table.index)
    if not found["slide"].notna().any():
        raise SourceError(
            f"{slide_map}: none of its {len(by_id):,} ids is among the source's patches; is it the map of another set?"
        )
    known = {str(name): found[name].astype(object).where(found[name].notna(), None) for name in found}
    return table.assign(**known)
