"""Clusters of like stain that are held out, in place of slides, where slides are not known."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.data.pack import Pack, load_patches, load_table
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.data.stain_clusters import cluster_patches
from pcam_model.training.device import best_device

HELD_OUT, VALIDATION = 0.2, 0.1
"""Shares of the patches whose clusters are held out, and whose clusters validate."""
CLUSTER_SEED = 2
Array = NDArray[Any]
Rows = dict[str, NDArray[np.int64]]


class Data(NamedTuple):
    """A pack with the label and the cluster of each patch; -1 is the cluster of repeats of another patch."""

    pack: Pack
    labels: NDArray[np.int64]
    clusters: NDArray[np.int64]

    def loader(self, rows: NDArray[np.int64], image_size: int = 96) -> PatchLoader:
        """A loader of some rows."""
        device = best_device()
        patches = on_device(load_patches(self.pack), device)
        return make_loader(patches, rows, self.labels[rows], image_size, device)


def read_data(pack: Pack) -> Data:
    """Cluster the labelled patches of a pack."""
    table = load_table(pack).rename_axis("row").reset_index()
    ordered = table.sort_values("id", ignore_index=True)
    found, _ = cluster_patches(pack, ordered, CLUSTER_SEED, VALIDATION)
    clusters = pd.Series(found, index=ordered["row"]).sort_index().to_numpy(np.int64, copy=True)
    clusters[table["pixels"].duplicated()] = -1
    return Data(pack, table["label"].to_numpy(np.int64), clusters)


def draw_parts(data: Data, seed: int, train: int, held: int) -> Rows:
    """Rows of a fifth of the clusters (`held`), of a tenth (`cluster`), and of the others' patches, in two parts that
    share clusters (`train`, and `random`, which is as large as `cluster`)."""
    rng = np.random.default_rng(seed)
    codes, counts = np.unique(data.clusters[data.clusters >= 0], return_counts=True)
    order = rng.permutation(codes)
    share = np.cumsum(counts[np.searchsorted(codes, order)]) / counts.sum()
    last = np.searchsorted(share, [HELD_OUT, HELD_OUT + VALIDATION]) + 1
    groups = {"held": order[: last[0]], "cluster": order[last[0] : last[1]], "rest": order[last[1] :]}
    rows = {name: rng.permutation(np.flatnonzero(np.isin(data.clusters, group))) for name, group in groups.items()}
    count = min(len(rows["cluster"]), train // 5)
    return {
        "held": rows["held"][:held],
        "cluster": rows["cluster"][:count],
        "random": rows["rest"][:count],
        "train": rows["rest"][count:][:train],
    }


def resample_clusters(clusters: Array, seed: int, draws: int) -> list[Array]:
    """The rows of all patches, then those of each bootstrap sample of their clusters (N,)."""
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(clusters == cluster) for cluster in np.unique(clusters)]
    samples: Sequence[Array] = [rng.integers(len(members), size=len(members)) for _ in range(draws)]
    rows = [np.concatenate([members[one] for one in sample]) for sample in samples]
    return [np.arange(len(clusters)), *rows]
