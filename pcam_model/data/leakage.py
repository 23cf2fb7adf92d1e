"""Leakage between splits, counted from the finished division."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError
from pcam_model.core.schema import Record
from pcam_model.core.splits import SPLITS

SplitKind = Literal["random", "slide", "cluster", "leave_one_domain_out", "official"]
KEEPS_SLIDES_APART: tuple[SplitKind, ...] = ("slide", "leave_one_domain_out")
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
    """Ids of patches in no split: they repeat one of a later split of the source's own division, or share a slide or
    pixels with the domain that is held out, or have no domain."""
    clusters_in_two_splits: int = 0
    """Clusters of like stain in more than one split; 0 where there are no clusters."""
    domains_held_out: tuple[str, ...] = ()
    """Domains whose patches are all in the test split."""


def count_classes(rows: pd.DataFrame, splits: NDArray[np.str_]) -> dict[str, ClassCounts]:
    """Patches of each class in each split."""
    labels = rows["label"].to_numpy()
    return {name: {str(c): int(((splits == name) & (labels == c)).sum()) for c in (0, 1)} for name in SPLITS}


def require_both_classes(counts: dict[str, ClassCounts], kind: SplitKind) -> None:
    """Raise SplitError where a split has one class only; test may be empty."""
    other = "split.domain" if kind == "leave_one_domain_out" else "split.seed"
    for name, classes in counts.items():
        if (sum(classes.values()) or name != "test") and not all(classes.values()):
            raise SplitError(
                f"split.kind={kind} gives the {name} split {classes['0']:,} patches of class 0 and {classes['1']:,} of "
                f"class 1; every split needs both; give more patches, or choose another {other} or split.kind"
            )


def check_leakage(rows: pd.DataFrame, splits: NDArray[np.str_], kind: SplitKind) -> LeakageReport:
    """Count what the splits share. Raises AssertionError where it breaks what the kind promises: a fault of ours."""
    used = rows.assign(split=splits)[splits != ""]
    columns = [name for name in ("id", "pixels", "slide", "cluster") if name in used]
    shared = {column: int((used.groupby(column)["split"].nunique() > 1).sum()) for column in columns}
    forbidden = ["id", "pixels", *(["slide"] if kind in KEEPS_SLIDES_APART else []), "cluster"]
    held_out = _held_out_domains(used)
    if any(shared.get(column) for column in forbidden) or (kind == "leave_one_domain_out" and not held_out):
        raise AssertionError(f"a {kind} split with {shared} in more than one split, and held out {held_out}")
    return LeakageReport(
        ids_in_two_splits=shared["id"],
        pixels_in_two_splits=shared["pixels"],
        slides_in_two_splits=shared["slide"],
        slides={name: count_slide_classes(used[used["split"] == name]) for name in SPLITS},
        unmapped_slides=int(used["slide"].isna().sum()),
        left_out=tuple(str(i) for i in rows["id"][splits == ""]),
        clusters_in_two_splits=shared.get("cluster", 0),
        domains_held_out=held_out,
    )


def _held_out_domains(used: pd.DataFrame) -> tuple[str, ...]:
    if "domain" not in used:
        return ()
    is_test = used["split"] == "test"
    others = set(used["domain"][~is_test].dropna())
    return tuple(sorted(str(domain) for domain in set(used["domain"][is_test].dropna()) - others))


def count_slide_classes(rows: pd.DataFrame) -> dict[str, ClassCounts]:
    """Patches of each class on each known slide."""
    counts = rows.dropna(subset=["slide"]).groupby("slide")["label"].agg(["size", "sum"])
    return {str(slide): {"0": int(size - ones), "1": int(ones)} for slide, size, ones in counts.itertuples()}
