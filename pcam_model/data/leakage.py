"""What a split keeps apart, counted anew from its result, and what a figure on it therefore means."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError
from pcam_model.core.schema import Record

Kind = Literal["random", "slide", "official"]
SIDES = ("train", "valid", "test")
Counts = dict[str, dict[str, int]]


class LeakageReport(Record):
    """What stands on which side."""

    ids_on_two_sides: int
    """Patches that stand on two sides."""
    pixels_on_two_sides: int
    """Different images that stand on two sides."""
    slides_on_two_sides: int
    """Known slides that stand on two sides."""
    slides: dict[str, dict[str, dict[str, int]]]
    """Patches of each class on each known slide of each side."""
    unmapped_slides: int
    """Patches whose slide is not known."""
    left_out: tuple[str, ...]
    """Ids of patches that repeat one of a later side of the source's own division."""


def counted(rows: pd.DataFrame, side: NDArray[np.str_]) -> Counts:
    """Patches of each class on each side."""
    labels = rows["label"].to_numpy()
    return {s: {str(c): int(((side == s) & (labels == c)).sum()) for c in (0, 1)} for s in SIDES}


def refuse_one_class(counts: Counts, kind: Kind) -> None:
    """Raise SplitError where a side that has patches has one class only."""
    for side, classes in counts.items():
        if (sum(classes.values()) or side != "test") and not all(classes.values()):
            raise SplitError(
                f"split.kind={kind} gives the {side} side {classes['0']:,} patches of class 0 and {classes['1']:,} of "
                "class 1; every side needs both; give more patches, or choose another split.seed or split.kind"
            )


def check_leakage(rows: pd.DataFrame, side: NDArray[np.str_], kind: Kind) -> LeakageReport:
    """The proof of a division. Raises AssertionError where it breaks what its kind promises: a fault of ours."""
    kept = rows.assign(side=side)[side != ""]
    shared = {name: int((kept.groupby(name)["side"].nunique() > 1).sum()) for name in ("id", "pixels", "slide")}
    if shared["id"] or shared["pixels"] or (shared["slide"] and kind == "slide"):
        raise AssertionError(f"a {kind} split with {shared} on two sides")
    return LeakageReport(
        ids_on_two_sides=shared["id"],
        pixels_on_two_sides=shared["pixels"],
        slides_on_two_sides=shared["slide"],
        slides={s: by_slide(kept[kept["side"] == s]) for s in SIDES},
        unmapped_slides=int(kept["slide"].isna().sum()),
        left_out=tuple(str(i) for i in rows["id"][side == ""]),
    )


def by_slide(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """Patches of each class on each known slide."""
    ones = rows.dropna(subset=["slide"]).groupby("slide")["label"].agg(["size", "sum"])
    return {str(slide): {"0": int(size - one), "1": int(one)} for slide, size, one in ones.itertuples()}


def meaning(kind: Kind, proof: LeakageReport) -> str:
    """The honest sentence of a figure on this split."""
    if kind == "random":
        return "optimistic: patches of one slide may stand on both sides, so new slides will do worse than this figure"
    said = "a figure for slides that were not trained on: no slide and no identical patch stands on two sides"
    if kind == "slide" and proof.unmapped_slides:
        return (
            f"{said}; optimistic where {proof.unmapped_slides:,} patches of unknown slides lie on one of them after all"
        )
    if kind == "slide":
        return said
    if proof.slides_on_two_sides:
        said = f"optimistic: {proof.slides_on_two_sides:,} slides stand on two sides of the source's own division"
    elif proof.unmapped_slides:
        said = "the source's own division; its slides are not known here, no identical patch stands on two sides"
    else:
        said = f"the source's own division, {said}"
    lost = len(proof.left_out)
    return f"{said}; {lost:,} patches that repeat one of a later side were left out" if lost else said
