"""Which side each labelled patch goes to, by the plan."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pcam_model.data.split_groups import enough_groups, fold_rows, groups_of, part
from pcam_model.data.leakage import SIDES, Kind
from pcam_model.core.errors import BadPlan, BadSplit
from pcam_model.core.schema import Plan


class SplitPlan(Plan):
    """How to divide the labelled patches."""

    kind: Literal["auto", "random", "slide", "official"] = "auto"
    """official: as the source divides; slide: no slide on two sides; random: any patch; auto: the first possible."""
    valid: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the patches for validation."""
    test: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the patches to report on, on which nothing is chosen."""
    seed: int = Field(default=2, ge=0)
    """Another seed, another division."""
    without_slide: Literal["refuse", "alone"] = "refuse"
    """Patches that the slide map does not name: refused, or each a slide of its own."""
    folds: int = Field(default=0, ge=0, le=20)
    """Divide what is not test into so many folds instead; one of them is valid. 0: by `valid`."""
    fold: int = Field(default=0, ge=0)
    """Which of the folds is valid, from 0."""


def best_kind(rows: pd.DataFrame) -> Kind:
    """What `auto` means for these patches."""
    if {"train", "valid"} <= set(rows["origin"]) <= set(SIDES):
        return "official"
    return "slide" if rows["slide"].notna().any() else "random"


def checked(plan: SplitPlan) -> float:
    """The share of the patches for validation. Raises BadPlan for what cannot be."""
    if plan.folds == 1 or plan.fold >= max(plan.folds, 1):
        raise BadPlan(
            f"split.folds is {plan.folds} and split.fold {plan.fold}; give two folds or more and a fold from 0 to "
            "split.folds - 1, or no folds (0 and 0)"
        )
    valid = (1 - plan.test) / plan.folds if plan.folds else plan.valid
    if valid + plan.test >= 1:
        raise BadPlan(
            f"split.valid and split.test together are {valid + plan.test:g}; less than 1 must remain for training"
        )
    return valid


def assign(rows: pd.DataFrame, kind: Kind, plan: SplitPlan) -> NDArray[np.str_]:
    """The side of each row, "" for the few that an official split leaves out. Rows are labelled and sorted by id."""
    valid = checked(plan)
    if kind == "official":
        return official(rows, plan)
    labels, groups = rows["label"].to_numpy(np.int64), np.asarray(pd.factorize(rows["pixels"])[0], np.int64)
    named = "groups of different patches"
    if kind == "slide":
        slides = slide_codes(rows, plan)
        groups, named = groups_of(groups, slides), "slides without shared patches"
        if (together := len(np.unique(slides)) - len(np.unique(groups))) > 0:
            named += (
                f" (the source has {together:,} more, which share an identical patch, say a blank one, with others)"
            )
    side = np.full(len(rows), "train", dtype="<U5")
    needed = max(plan.folds, 2)
    enough_groups(groups, needed + (plan.test > 0), named)
    if plan.test:
        side[part(labels, groups, plan.test, plan.seed, needed)] = "test"
    rest = np.flatnonzero(side == "train")
    enough_groups(groups[rest], needed, f"{named} beside the test side")
    if plan.folds:
        taken = fold_rows(labels[rest], groups[rest], plan.folds, plan.seed)[plan.fold]
    else:
        taken = part(labels[rest], groups[rest], valid / (1 - plan.test), plan.seed)
    side[rest[taken]] = "valid"
    return side


def slide_codes(rows: pd.DataFrame, plan: SplitPlan) -> NDArray[np.int64]:
    """A number a slide."""
    lost = rows["id"][rows["slide"].isna()]
    if len(lost) == len(rows):
        raise BadSplit(
            "split.kind is slide, but the slides of the patches are not known; give their map (a CSV with the columns "
            "id,wsi) as source.slides, or choose split.kind=random"
        )
    if len(lost) and plan.without_slide == "refuse":
        raise BadSplit(
            f"the slide map does not name {len(lost):,} of {len(rows):,} patches (first: {lost.iat[0]}); every patch "
            "needs a slide; complete the map, or take each as a slide of its own with split.without_slide=alone"
        )
    named = rows["slide"].astype(object).where(rows["slide"].notna(), "\0" + rows["id"].astype(object))
    return np.asarray(pd.factorize(named)[0], np.int64)


def official(rows: pd.DataFrame, plan: SplitPlan) -> NDArray[np.str_]:
    """The source's own sides; of identical patches on two sides those that train (or valid) has are left out."""
    if not {"train", "valid"} <= set(rows["origin"]) <= set(SIDES):
        raise BadSplit(
            f"split.kind is official, but the source divides its labelled patches into {sorted(set(rows['origin']))}; "
            "train and valid are needed; choose split.kind=random, or slide with a slide map"
        )
    if plan.folds:
        raise BadPlan("split.folds is given, but an official split has none; choose split.kind=slide or random with it")
    side = rows["origin"].to_numpy().astype("<U5")
    rank = rows["origin"].map(SIDES.index)
    side[(rank < rank.groupby(rows["pixels"]).transform("max")).to_numpy()] = ""
    return side
