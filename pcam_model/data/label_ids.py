"""Which image each id of a label table names, where the two are written a little differently."""

from collections.abc import Callable
from unicodedata import normalize

import pandas as pd

from pcam_model.data.file_names import is_image


def _composed(name: str) -> str:
    return normalize("NFC", name)  # macOS writes letters and their accents apart in names of files


def _below_train(name: str) -> str:
    path = _composed(name).replace("\\", "/").removeprefix("./").removeprefix("train/")
    return path.rpartition(".")[0] if is_image(path) else path


def _bare(name: str) -> str:
    return _below_train(name).rpartition("/")[2]


Normalise = Callable[[str], str]
# Each on top of those before it; what people's programs do to a table.
SPELLINGS: list[tuple[str, Normalise]] = [
    ("in one form of accents", _composed),
    ("without endings", _below_train),
    ("without folders and endings", _bare),
    ("in any upper and lower case", lambda name: _bare(name).lower()),
    ("without leading zeros", lambda name: _bare(name).lower().lstrip("0") or "0"),
]


def match_ids(ids: "pd.Index[str]", images: "pd.Index[str]") -> tuple["pd.Index[str]", str]:
    """The image of each id and how they were compared, "" for as they are.

    Where an id has no image, or two have the same, they are returned as they are.
    """
    if ids.isin(images).all():
        return ids, ""
    for spelling, normalise in SPELLINGS:
        by_name: dict[str, str] = {normalise(str(image)): str(image) for image in images}
        matched = [by_name.get(normalise(str(each))) for each in ids]
        if len(by_name) == len(images) and None not in matched and len(set(matched)) == len(matched):
            return pd.Index(matched, dtype=object), spelling
    return ids, ""
