"""The split of each labelled patch, by the config."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field, model_validator

from pcam_model.core.errors import ConfigError, SplitError
from pcam_model.core.schema import Config
from pcam_model.core.splits import SPLITS
from pcam_model.data.leakage import SplitKind
from pcam_model.data.split_domain import held_out_domain
from pcam_model.data.split_groups import connected_groups, make_folds, require_groups, sample_groups


class SplitConfig(Config):
    """How the labelled patches are divided into train, valid and test."""

    kind: Literal["auto", "official", "slide", "cluster", "random", "leave_one_domain_out"] = "auto"
    """official: the source's own splits; slide: no slide in two splits; cluster: no cluster of patches of like stain in
    two splits; random: any patch; auto: the first of these that is possible; leave_one_domain_out: test is `domain`."""
    domain: str = ""
    """For leave_one_domain_out: the domain (centre, scanner) that is test. `valid` is a share of the other domains."""
    valid: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the patches for validation."""
    test: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the patches for the test split, which is only reported on: nothing is chosen on it."""
    seed: int = Field(default=2, ge=0)
    """Seed of the division."""
    unmapped_slides: Literal["refuse", "alone"] = "refuse"
    """Of patches that the slide map does not name, refuse: the run stops; alone: each is a slide of its own."""
    folds: int = Field(default=0, ge=0, le=20)
    """Divide what is not test into this many folds, one of which is valid. 0: no folds, `valid` decides."""
    fold: int = Field(default=0, ge=0)
    """The fold that is valid, from 0."""

    @model_validator(mode="after")
    def _fold_exists(self) -> "SplitConfig":
        if self.folds == 1 or self.fold >= max(self.folds, 1):
            raise ValueError(
                f"split.folds is {self.folds} and split.fold {self.fold}; give two folds or more and a fold from 0 to "
                "split.folds - 1, or no folds (0 and 0)"
            )
        return self

    @model_validator(mode="after")
    def _names_a_domain_to_leave_out(self) -> "SplitConfig":
        if (self.kind == "leave_one_domain_out") != bool(self.domain):
            raise ValueError(
                f"split.kind is {self.kind} and split.domain {self.domain!r}; give split.kind=leave_one_domain_out and "
                "in split.domain the domain (centre, scanner) to hold out, or neither"
            )
        if self.domain and self.test:
            raise ValueError(
                f"split.test is {self.test:g}, but with split.kind=leave_one_domain_out the domain is the test split; "
                "leave split.test at 0"
            )
        return self

    @model_validator(mode="after")
    def _leaves_patches_for_training(self) -> "SplitConfig":
        if self.valid_fraction + self.test >= 1:
            raise ValueError(
                f"split.valid and split.test together are {self.valid_fraction + self.test:g}; less than 1 must remain "
                "for training"
            )
        return self

    @property
    def has_test(self) -> bool:
        """Whether the config asks for a test split; an official split may bring one all the same."""
        return self.test > 0 or self.kind == "leave_one_domain_out"

    @property
    def valid_fraction(self) -> float:
        """The share of the patches for validation, by `folds` or `valid`."""
        return (1 - self.test) / self.folds if self.folds else self.valid


def resolve_kind(rows: pd.DataFrame, config: SplitConfig) -> SplitKind:
    """The config's kind; for `auto` the first that these patches' table allows, cluster where slides are not known."""
    if config.kind != "auto":
        return config.kind
    if _has_official_splits(rows):
        return "official"
    return "slide" if rows["slide"].notna().any() else "cluster"


def assign_splits(rows: pd.DataFrame, kind: SplitKind, config: SplitConfig) -> NDArray[np.str_]:
    """The split of each row (N,); "" for those that are left out, see `official_splits` and `domain_splits`.

    Args:
        rows: labelled patches (columns id, label, slide, pixels, origin, and domain and cluster where the kind needs
            them), sorted by id.
        kind: how to divide.
        config: shares, folds and seed.

    Raises:
        SplitError: the patches cannot be divided like this.
        ConfigError: the config asks for folds of an official split.
    """
    if kind == "official":
        return official_splits(rows, config)
    if kind == "leave_one_domain_out":
        return domain_splits(rows, config)
    labels = rows["label"].to_numpy(np.int64)
    groups, noun = _groups(rows, kind, config)
    splits = np.full(len(rows), "train", dtype="<U5")
    required = max(config.folds, 2)
    require_groups(groups, required + (config.test > 0), noun)
    if config.test:
        splits[sample_groups(labels, groups, config.test, config.seed, required)] = "test"
    rest = np.flatnonzero(splits == "train")
    require_groups(groups[rest], required, f"{noun} beside the test split")
    if config.folds:
        valid = make_folds(labels[rest], groups[rest], config.folds, config.seed)[config.fold]
    else:
        valid = sample_groups(labels[rest], groups[rest], config.valid / (1 - config.test), config.seed)
    splits[rest[valid]] = "valid"
    return splits


def _groups(rows: pd.DataFrame, kind: SplitKind, config: SplitConfig) -> tuple[NDArray[np.int64], str]:
    """Codes (N,) of groups that stay in one split, and what a message calls the groups."""
    pixels = np.asarray(pd.factorize(rows["pixels"])[0], np.int64)
    if kind == "random":
        return pixels, "groups of different patches"
    if kind == "cluster":
        return connected_groups(pixels, rows["cluster"].to_numpy(np.int64)), "clusters of like stain"
    slides = slide_codes(rows, config)
    groups = connected_groups(pixels, slides)
    noun = "slides without shared patches"
    if (joined := len(np.unique(slides)) - len(np.unique(groups))) > 0:
        noun += f" (the source has {joined:,} more, which share an identical patch, say a blank one, with others)"
    return groups, noun


def slide_codes(rows: pd.DataFrame, config: SplitConfig) -> NDArray[np.int64]:
    """A number for each slide (N,). Raises SplitError for patches without a slide that may not be one of their own."""
    unmapped = rows["id"][rows["slide"].isna()]
    if len(unmapped) == len(rows):
        raise SplitError(
            "split.kind is slide, but the slides of the patches are not known; give their map (a CSV with the columns "
            "id,wsi) as source.slides, or choose split.kind=cluster or random"
        )
    if len(unmapped) and config.unmapped_slides == "refuse":
        raise SplitError(
            f"the slide map does not name {len(unmapped):,} of {len(rows):,} patches (first: {unmapped.iat[0]}); every "
            "patch needs a slide; complete the map, or take each as a slide of its own with split.unmapped_slides=alone"
        )
    names = rows["slide"].astype(object).where(rows["slide"].notna(), "\0" + rows["id"].astype(object))
    return np.asarray(pd.factorize(names)[0], np.int64)


def domain_splits(rows: pd.DataFrame, config: SplitConfig) -> NDArray[np.str_]:
    """The held-out domain is test; the others are divided by slide where any is known.

    Left out ("") are patches of no known domain, and those of other domains with a slide or the pixels of this one.
    """
    held_out, others = held_out_domain(rows, config.domain)
    splits = np.full(len(rows), "", dtype="<U5")
    splits[held_out] = "test"
    rest = rows[others].reset_index(drop=True)
    kind: SplitKind = "slide" if rest["slide"].notna().any() else "random"
    splits[others] = assign_splits(rest, kind, config)
    return splits


def official_splits(rows: pd.DataFrame, config: SplitConfig) -> NDArray[np.str_]:
    """The source's own splits; of identical patches in two splits the one in the later split is kept, others are ""."""
    if not _has_official_splits(rows):
        raise SplitError(
            f"split.kind is official, but the source divides its labelled patches into {sorted(set(rows['origin']))}; "
            "train and valid are needed; choose split.kind=random, or slide with a slide map"
        )
    if config.folds:
        raise ConfigError(
            "split.folds is given, but an official split has none; choose split.kind=slide, cluster or random with it"
        )
    splits = rows["origin"].to_numpy().astype("<U5")
    rank = rows["origin"].map(SPLITS.index)
    splits[(rank < rank.groupby(rows["pixels"]).transform("max")).to_numpy()] = ""
    return splits


def _has_official_splits(rows: pd.DataFrame) -> bool:
    return {"train", "valid"} <= set(rows["origin"]) <= set(SPLITS)
