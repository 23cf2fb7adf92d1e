"""The division of labelled patches by any kind of split, with the clusters that it may need."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SplitError
from pcam_model.core.log import log
from pcam_model.data.leakage import SplitKind, count_classes, require_both_classes
from pcam_model.data.pack import Pack
from pcam_model.data.split_assignment import SplitConfig, assign_splits, resolve_kind
from pcam_model.data.split_groups import require_proportion
from pcam_model.data.stain_clusters import StainClusters, cluster_patches


@dataclass(frozen=True)
class Division:
    """A finished division of labelled patches.

    Attributes:
        rows: the patches; with the column cluster where they were divided by clusters.
        splits: the split (N,) of each, "" where it is left out.
        kind: how they were divided.
        clusters: how they were clustered.
        no_clusters: why the division is a random one, where `auto` tried one by clusters.
    """

    rows: pd.DataFrame
    splits: NDArray[np.str_]
    kind: SplitKind
    clusters: StainClusters | None = None
    no_clusters: str = ""


def divide(pack: Pack, rows: pd.DataFrame, config: SplitConfig) -> Division:
    """The division of a pack's labelled `rows`, sorted by id.

    Where `auto` comes to clusters and these are impossible, a warning says why and the division is a random one.

    Raises:
        SplitError: the patches cannot be divided as the config asks.
    """
    kind = resolve_kind(rows, config)
    if kind != "cluster":
        return _divide_by(kind, rows, config)
    try:
        return _divide_by_clusters(pack, rows, config)
    except SplitError as error:
        if config.kind == "cluster":
            raise
        log.warning("Split: patches are divided at random and not by clusters of like stain, since %s", error)
        return replace(_divide_by("random", rows, config), no_clusters=str(error).partition(";")[0])


def _divide_by(kind: SplitKind, rows: pd.DataFrame, config: SplitConfig) -> Division:
    splits = assign_splits(rows, kind, config)
    require_both_classes(count_classes(rows, splits), kind)
    return Division(rows, splits, kind)


def _divide_by_clusters(pack: Pack, rows: pd.DataFrame, config: SplitConfig) -> Division:
    shares = {"valid": config.valid_fraction, **({"test": config.test} if config.test else {})}
    log.info("Split: clustering %s patches by their stain", f"{len(rows):,}")
    codes, clusters = cluster_patches(pack, rows, config.seed, min(shares.values()))
    division = replace(_divide_by("cluster", rows.assign(cluster=codes), config), clusters=clusters)
    require_proportion(rows["label"].to_numpy(np.int64), division.splits, shares)
    return division
