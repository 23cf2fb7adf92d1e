"""Which side each labelled patch goes to, by the config."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from pcam_model.core.errors import ConfigError, SplitError
from pcam_model.core.schema import Config
from pcam_model.data.leakage import SIDES, Kind
from pcam_model.data.split_groups import enough_groups, fold_rows, groups_of, part


class SplitConfig(Config):
    """How to divide the labelled patches."""

    kind: Literal["auto", "random", "slide", "official"] = "auto"
    """official: as the source divides; slide: no slide on two sides; random: any patch; auto: the first possible."""
    valid: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the patches for validation."""
    test: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the patches to report on, on which nothing is chosen."""
    seed: int = Field(default=2, ge=0)
    """Another seed, another division."""
    unmapped_slides: Literal["refuse", "alone"] = "refuse"
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


def checked(config: SplitConfig) -> float:
    """The share of the patches for validation. Raises ConfigError for what cannot be."""
    if config.folds == 1 or config.fold >= max(config.folds, 1):
        raise ConfigError(
            f"split.folds is {config.folds} and split.fold {config.fold}; give two folds or more and a fold from 0 to "
            "split.folds - 1, or no folds (0 and 0)"
        )
    valid = (1 - config.test) / config.folds if config.folds else config.valid
    if valid + config.test >= 1:
        raise ConfigError(
            f"split.valid and split.test together are {valid + config.test:g}; less than 1 must remain for training"
        )
    return valid


def assign(rows: pd.DataFrame, kind: Kind, config: SplitConfig) -> NDArray[np.str_]:
    """The side of each row, "" for the few that an official split leaves out. Rows are labelled and sorted by id."""
    valid = checked(config)
    if kind == "official":
        return official(rows, config)
    labels, groups = rows["label"].to_numpy(np.int64), np.asarray(pd.factorize(rows["pixels"])[0], np.int64)
    named = "groups of different patches"
    if kind == "slide":
        slides = slide_codes(rows, config)
        groups, named = groups_of(groups, slides), "slides without shared patches"
        if (together := len(np.unique(slides)) - len(np.unique(groups))) > 0:
            named += (
                f" (the source has {together:,} more, which share an identical patch, say a blank one, with others)"
            )
    side = np.full(len(rows), "train", dtype="<U5")
    required = max(config.folds, 2)
    enough_groups(groups, required + (config.test > 0), named)
    if config.test:
        side[part(labels, groups, config.test, config.seed, required)] = "test"
    rest = np.flatnonzero(side == "train")
    enough_groups(groups[rest], required, f"{named} beside the test side")
    if config.folds:
        taken = fold_rows(labels[rest], groups[rest], config.folds, config.seed)[config.fold]
    else:
        taken = part(labels[rest], groups[rest], valid / (1 - config.test), config.seed)
    side[rest[taken]] = "valid"
    return side


def slide_codes(rows: pd.DataFrame, config: SplitConfig) -> NDArray[np.int64]:
    """A number a slide."""
    lost = rows["id"][rows["slide"].isna()]
    if len(lost) == len(rows):
        raise SplitError(
            "split.kind is slide, but the slides of the patches are not known; give their map (a CSV with the columns "
            "id,wsi) as source.slides, or choose split.kind=random"
        )
    if len(lost) and config.unmapped_slides == "refuse":
        raise SplitError(
            f"the slide map does not name {len(lost):,} of {len(rows):,} patches (first: {lost.iat[0]}); every patch "
            "needs a slide; complete the map, or take each as a slide of its own with split.unmapped_slides=alone"
        )
    named = rows["slide"].astype(object).where(rows["slide"].notna(), "\0" + rows["id"].astype(object))
    return np.asarray(pd.factorize(named)[0], np.int64)


def official(rows: pd.DataFrame, config: SplitConfig) -> NDArray[np.str_]:
    """The source's own sides; of identical patches on two sides those that train (or valid) has are left out."""
    if not {"train", "valid"} <= set(rows["origin"]) <= set(SIDES):
        raise SplitError(
            f"split.kind is official, but the source divides its labelled patches into {sorted(set(rows['origin']))}; "
            "train and valid are needed; choose split.kind=random, or slide with a slide map"
        )
    if config.folds:
        raise ConfigError(
            "split.folds is given, but an official split has none; choose split.kind=slide or random with it"
        )
    side = rows["origin"].to_numpy().astype("<U5")
    rank = rows["origin"].map(SIDES.index)
    side[(rank < rank.groupby(rows["pixels"]).transform("max")).to_numpy()] = ""
    return side
