"""Leakage between splits, counted from the finished division, and what a figure on it therefore means."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError
from pcam_model.core.schema import Record
from pcam_model.core.splits import SPLITS

SplitKind = Literal["random", "slide", "official"]
ClassCounts = dict[str, int]
"""Patches of class "0" and "1"."""


class LeakageReport(Record):
    """What the splits share, and the slides of each."""

    ids_in_two_splits: int
    """Patches in more than one split."""
    pixels_in_two_splits: int
    """Different images in more than one split."""
    slides_in_two_splits: int
    """Known slides in more than one split."""
    slides: dict[str, dict[str, ClassCounts]]
    """Patches of each class on each known slide, by split."""
    unmapped_slides: int
    """Patches whose slide is not known."""
    left_out: tuple[str, ...]
    """Ids of patches in no split: they repeat one of a later split of the source's own division."""


def count_classes(rows: pd.DataFrame, splits: NDArray[np.str_]) -> dict[str, ClassCounts]:
    """Patches of each class in each split."""
    labels = rows["label"].to_numpy()
    return {name: {str(c): int(((splits == name) & (labels == c)).sum()) for c in (0, 1)} for name in SPLITS}


def require_both_classes(counts: dict[str, ClassCounts], kind: SplitKind) -> None:
    """Raise SplitError where a split has one class only; test may be empty."""
    for name, classes in counts.items():
        if (sum(classes.values()) or name != "test") and not all(classes.values()):
            raise SplitError(
                f"split.kind={kind} gives the {name} split {classes['0']:,} patches of class 0 and {classes['1']:,} of "
                "class 1; every split needs both; give more patches, or choose another split.seed or split.kind"
            )


def check_leakage(rows: pd.DataFrame, splits: NDArray[np.str_], kind: SplitKind) -> LeakageReport:
    """Count what the splits share. Raises AssertionError where it breaks what the kind promises: a fault of ours."""
    used = rows.assign(split=splits)[splits != ""]
    shared = {column: int((used.groupby(column)["split"].nunique() > 1).sum()) for column in ("id", "pixels", "slide")}
    if shared["id"] or shared["pixels"] or (shared["slide"] and kind == "slide"):
        raise AssertionError(f"a {kind} split with {shared} in more than one split")
    return LeakageReport(
        ids_in_two_splits=shared["id"],
        pixels_in_two_splits=shared["pixels"],
        slides_in_two_splits=shared["slide"],
        slides={name: count_slide_classes(used[used["split"] == name]) for name in SPLITS},
        unmapped_slides=int(used["slide"].isna().sum()),
        left_out=tuple(str(i) for i in rows["id"][splits == ""]),
    )


def count_slide_classes(rows: pd.DataFrame) -> dict[str, ClassCounts]:
    """Patches of each class on each known slide."""
    counts = rows.dropna(subset=["slide"]).groupby("slide")["label"].agg(["size", "sum"])
    return {str(slide): {"0": int(size - ones), "1": int(ones)} for slide, size, ones in counts.itertuples()}


def describe_split(kind: SplitKind, leakage: LeakageReport) -> str:
    """What a figure on this split says, and what it does not, in a sentence."""
    unseen = "a figure for slides that were not trained on: no slide and no identical patch is in two splits"
    if kind == "random":
        return "optimistic: patches of one slide may be in two splits, so new slides will do worse than this figure"
    if kind == "official":
        return _describe_official(leakage, unseen)
    if leakage.unmapped_slides:
        return f"{unseen}; optimistic where {leakage.unmapped_slides:,} patches of unknown slides are from one of these"
    return unseen


def _describe_official(leakage: LeakageReport, unseen: str) -> str:
    if leakage.slides_in_two_splits:
        text = f"optimistic: {leakage.slides_in_two_splits:,} slides are in two splits of the source's own division"
    elif leakage.unmapped_slides:
        text = "the source's own division; its slides are not known here, no identical patch is in two splits"
    else:
        text = f"the source's own division, {unseen}"
    if not leakage.left_out:
        return text
    return f"{text}; {len(leakage.left_out):,} patches that repeat one of a later split were left out"
