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
    """The table with the slides of a CSV `id,wsi`, None for ids that it does not name; unchanged for the path ""."""
    if not slide_map:
        return table
    slide_of = read_slide_map(Path(slide_map).expanduser())
    slides = table["id"].map(slide_of)
    if not slides.notna().any():
        raise SourceError(
            f"{slide_map}: none of its {len(slide_of):,} ids is among the source's patches; is it the map of another "
            "set?"
        )
    return table.assign(slide=slides.astype(object).where(slides.notna(), None))
