"""Clusters of patches of like stain, which stand for slides where these are not known.

A slide has a hue of its own, of its dyes, its scanner and its age, whatever tissue a patch shows. So patches are
clustered by their hue, the share of red, green and blue in their optical density, which hardly depends on how many
nuclei there are and so little on the label.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pcam_model.core.errors import SplitError
from pcam_model.core.rng import derived_seed
from pcam_model.core.schema import Record
from pcam_model.data.mmap_reader import MmapReader
from pcam_model.data.pack_files import Pack, load_patches
from pcam_model.data.stain import MIN_LEVEL
from pcam_model.data.tissue_pieces import tile_digests, tissue_pieces

Array = NDArray[np.float64]
# Of these numbers of clusters the one with the best silhouette is taken, among those that give the smallest split at
# least four clusters on average, without which its classes are out of proportion, and a cluster 25 patches.
CANDIDATES, CLUSTERS_PER_SPLIT, PATCHES_PER_CLUSTER = (16, 24, 32, 48, 64, 96, 128), 4, 25
MAX_FIT, SILHOUETTE_SAMPLE, RESTARTS = 20_000, 2000, 4
BATCH = 256
CLUSTER_KEY = 80  # the first number of an RNG key: what the random numbers are for
# Optical density in integers, whose sums are exact: the same on every machine, by any number of threads.
DENSITY = np.round(-np.log(np.maximum(np.arange(256), MIN_LEVEL) / 255) * 2**16).astype(np.int32)
NEUTRAL = 0.05  # optical density of grey that is added: glass has no hue


class StainClusters(Record):
    """Number and separation of the clusters, and the pieces of tissue that were kept together."""

    count: int
    """Clusters."""
    silhouette: float
    """How well they are separated, over a sample of patches: -1 to 1, 0 where they merge into each other."""
    largest: float
    """Share of the patches in the largest cluster."""
    tissue_pieces: int
    """Pieces of tissue that more than one patch shows; each is in one cluster."""
    patches_in_pieces: int
    """Patches that show these pieces."""


def cluster_patches(
    pack: Pack, rows: pd.DataFrame, seed: int, smallest: float
) -> tuple[NDArray[np.int64], StainClusters]:
    """The cluster (N,) of each patch in `rows`, and how well the clusters are separated.

    It depends on the patches and the seed alone: neither on the order in the pack nor on the number of threads.

    Args:
        pack: has the patches; they are read batch by batch.
        rows: columns row (of the pack) and pixels, sorted by id.
        seed: of the random numbers.
        smallest: share of the patches in the smallest split.

    Raises:
        SplitError: there are too few patches, or too few different hues.
    """
    candidates = candidate_counts(len(rows), smallest)
    hues, digests = read_features(pack, rows["row"].to_numpy(np.int64))
    pieces = tissue_pieces(digests, np.asarray(pd.factorize(rows["pixels"])[0], np.int64))
    sizes = np.bincount(pieces)
    hues = np.stack([np.bincount(pieces, column) / sizes for column in hues.T], 1)[pieces].round(6)
    clusters, silhouette = find_clusters(hues, candidates, seed)
    counts = np.bincount(clusters)
    return clusters, StainClusters(
        count=len(counts),
        silhouette=round(silhouette, 3),
        largest=round(float(counts.max() / len(rows)), 3),
        tissue_pieces=int((sizes > 1).sum()),
        patches_in_pieces=int(sizes[sizes > 1].sum()),
    )


def candidate_counts(patches: int, smallest: float) -> list[int]:
    """The numbers of clusters that so many patches can have. Raises SplitError where there is none.

    Args:
        patches: to cluster.
        smallest: share of the patches in the smallest split.
    """
    enough = [count for count in CANDIDATES if count >= CLUSTERS_PER_SPLIT / smallest] or [CANDIDATES[-1]]
    counts = [count for count in enough if count * PATCHES_PER_CLUSTER <= patches]
    if not counts:
        raise SplitError(
            f"{patches:,} patches are too few for clusters: with {smallest:.0%} of them in the smallest split, "
            f"{enough[0] * PATCHES_PER_CLUSTER:,} are needed; give more, or choose split.kind=random, or slide with a "
            "slide map"
        )
    return counts


@threadpool_limits.wrap(limits=1)  # type: ignore[untyped-decorator] # threads add up in any order
def find_clusters(hues: Array, candidates: Sequence[int], seed: int) -> tuple[NDArray[np.int64], float]:
    """Clusters (N,) of hues (N, 3) by k-means, in the candidate number with the best silhouette, and their silhouette.

    Raises:
        SplitError: there are fewer different hues than clusters.
    """
    rng = np.random.default_rng(derived_seed(seed, CLUSTER_KEY))
    scaled = StandardScaler().fit_transform(hues)
    fitted = scaled[np.sort(rng.permutation(len(scaled))[:MAX_FIT])]
    sample = np.sort(rng.permutation(len(scaled))[:SILHOUETTE_SAMPLE])
    different = len(np.unique(fitted, axis=0))
    if different < candidates[0]:
        raise SplitError(
            f"the patches have {different} different hues, too few for {candidates[0]} clusters; choose "
            "split.kind=random, or slide with a slide map"
        )
    best: tuple[NDArray[np.int64], float] | None = None
    for count in (count for count in candidates if count <= different):
        model = KMeans(count, n_init=RESTARTS, random_state=seed % 2**32).fit(fitted)
        codes = np.asarray(np.unique(model.predict(scaled), return_inverse=True)[1], np.int64)
        silhouette = _silhouette(scaled[sample], codes[sample])
        if best is None or silhouette > best[1]:
            best = codes, silhouette
    assert best is not None
    return best


def _silhouette(hues: Array, codes: NDArray[np.int64]) -> float:
    return float(silhouette_score(hues, codes)) if len(np.unique(codes)) > 1 else -1.0


def read_features(pack: Pack, rows: NDArray[np.int64]) -> tuple[Array, NDArray[np.uint64]]:
    """Hues (N, 3) and digests of tiles (N, 9) of these rows of the pack, which is read in its own order."""
    hues, digests = np.empty((len(rows), 3)), np.empty((len(rows), 9), np.uint64)
    reader = MmapReader(load_patches(pack), torch.device("cpu"))
    order = np.argsort(rows, kind="stable")
    for start in range(0, len(rows), BATCH):
        batch = order[start : start + BATCH]
        patches = reader.gather(torch.from_numpy(rows[batch])).numpy()
        hues[batch], digests[batch] = stain_hues(patches), tile_digests(patches)
    return hues, digests


def stain_hues(patches: NDArray[np.uint8]) -> Array:
    """Shares (N, 3) of red, green and blue in the optical density of patches uint8 (N, H, W, 3)."""
    density = DENSITY[patches].sum((1, 2), dtype=np.int64) / (2**16 * patches.shape[1] * patches.shape[2]) + NEUTRAL / 3
    hues: Array = density / density.sum(1, keepdims=True)
    return hues
