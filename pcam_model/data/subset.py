"""Which of a source's patches are taken, and on which slides they lie."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.data.csv_tables import read_listing


def chosen(table: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """All rows, or `limit` labelled ones: classes in proportion, by a hash of (seed, id), whatever the rows' order."""
    labelled = table[table["label"].notna()]
    if limit is None or limit >= len(labelled):
        return table if limit is None else labelled
    taken = []
    for label, count in shares(labelled["label"].astype(int), limit).items():
        ids = sorted(
            labelled["id"][labelled["label"] == label], key=lambda i: hashlib.sha256(f"{seed} {i}".encode()).digest()
        )
        taken += ids[:count]
    return labelled[labelled["id"].isin(taken)]


def shares(labels: "pd.Series[int]", limit: int) -> dict[int, int]:
    """How many of each class make `limit` patches in proportion, at least one of each."""
    ones = int(np.clip(round(limit * float((labels == 1).mean())), 1, limit - 1))
    return {0: limit - ones, 1: ones}


def with_slides(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """The table with the slides of a CSV `id,wsi`; ids that the CSV does not name keep none."""
    if not path:
        return table
    known = read_slides(Path(path).expanduser())
    found = table["id"].map(known)
    if not found.notna().any():
        raise SourceError(
            f"{path}: none of its {len(known):,} ids is among the source's patches; is it the map of another set?"
        )
    return table.assign(slide=found.astype(object).where(found.notna(), None))


def read_slides(path: Path) -> "pd.Series[str]":
    """Slides by id. Raises ConfigError when there is no file, SourceError when it is no map."""
    if not path.is_file():
        raise ConfigError(f"source.slides is {path}, but there is no such file; give a CSV with the columns id,wsi")
    try:
        table = read_listing(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: it cannot be read as a CSV ({error}); expected the columns id,wsi") from error
    if not {"id", "wsi"} <= set(table.columns):
        raise SourceError(f"{path}: its columns are {','.join(table.columns)}; expected id,wsi")
    table = table[table["wsi"] != ""].drop_duplicates(["id", "wsi"])
    twice = table["id"][table["id"].duplicated()]
    if len(twice):
        raise SourceError(f"{path}: it puts {twice.iat[0]} on two slides; a patch lies on one; remove one of the lines")
    return table.set_index("id")["wsi"]
