"""The labels of slides, from a CSV."""

from pathlib import Path
from typing import NamedTuple

from pcam_model.core.errors import SourceError
from pcam_model.core.splits import SPLITS
from pcam_model.data.csv_tables import read_csv_file
from pcam_model.data.file_names import class_of


class SlideLabel(NamedTuple):
    """A labelled slide."""

    slide: str
    """Its name in the results, or its file's."""
    label: int
    """1: it holds tumour."""
    split: str
    """train, valid or test; empty where the table has no such column."""


def read_slide_labels(path: Path) -> list[SlideLabel]:
    """The labels of a CSV with the columns slide, label and perhaps split.

    A label is 0 or 1, or a usual name of a class as normal or tumor.

    Raises:
        SourceError: it is no such table, or a slide is labelled twice.
    """
    table = read_csv_file(path, {"slide", "label"}, "slide,label, and perhaps split")
    splits = table["split"].str.lower() if "split" in table else table["slide"].map(lambda _: "")
    repeated = table["slide"][table["slide"].duplicated()]
    if len(repeated):
        raise SourceError(f"{path}: {repeated.iat[0]} is labelled twice; remove one of the lines")
    return [
        SlideLabel(slide, _label(path, slide, label), _split(path, slide, split, "split" in table))
        for slide, label, split in zip(table["slide"], table["label"], splits, strict=True)
    ]


def _label(path: Path, slide: str, text: str) -> int:
    label = class_of(text)
    if label is None:
        raise SourceError(f"{path}: the label of {slide} is {text!r}; expected 0 or 1, or normal or tumor")
    return label


def _split(path: Path, slide: str, split: str, has_column: bool) -> str:
    if has_column and split not in SPLITS:
        raise SourceError(f"{path}: the split of {slide} is {split!r}; expected {', '.join(SPLITS)}")
    return split
