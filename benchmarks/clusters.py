"""Do clusters of like stain stand for slides? Their purity beside chance, and how much a split by them flatters.

    python -m benchmarks.clusters --train ../shared/data/pcam/train.zip --valid ../shared/data/pcam/valid.zip \
        --weights ../shared/data/weights/mobilenet_v2-imagenet-features.pth [--slides id_wsi.csv] [--seed 2]

The slides of these patches are not known, but overlapping patches are surely of one. So purity is that of clusters by
hue alone with respect to pieces of tissue, or to slides where --slides names them. Then a logistic regression on frozen
features is trained five times on four fifths of the first archive, at random or by clusters, and tested on the fifth
and on the second archive, which shares no slide with the first.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torchvision.models import mobilenet_v2

from benchmarks.machine import write_result
from pcam_model.data.pack import Pack, build_pack, load_patches, load_table
from pcam_model.data.patch_loader import normalise
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.data.split_groups import make_folds
from pcam_model.data.stain_clusters import candidate_counts, cluster_patches, find_clusters, read_features
from pcam_model.data.tissue_pieces import tissue_pieces

Codes = NDArray[np.int64]
FOLDS, MIN_PIECE, SHUFFLES = 5, 10, 20


def packed(source: str, slides: str, home: Path) -> tuple[Pack, pd.DataFrame]:
    """A pack and its table with the number of each row, sorted by id."""
    config = SourceConfig(kind="path", path=source, slides=slides)
    pack = build_pack(fetch(config, 2), config, home, 2)
    return pack, load_table(pack).rename_axis("row").reset_index().sort_values("id", ignore_index=True)


def main_share(clusters: Codes, groups: Codes) -> float:
    """The share of the patches that are in the cluster which most patches of their group are in."""
    counts = pd.crosstab(groups, clusters)
    return float(counts.max(axis=1).sum() / len(groups))


def purity(clusters: Codes, groups: Codes, labels: Codes, seed: int) -> dict[str, float | int]:
    """How well clusters and large groups agree, beside clusters that are shuffled within each class."""
    is_large = np.bincount(groups)[groups] >= MIN_PIECE
    random, chance = np.random.default_rng(seed), []
    for _ in range(SHUFFLES):
        shuffled = clusters.copy()
        for label in (0, 1):
            rows = np.flatnonzero(labels == label)
            shuffled[rows] = clusters[random.permutation(rows)]
        chance.append(main_share(shuffled[is_large], groups[is_large]))
    return {
        "groups": len(np.unique(groups[is_large])),
        "patches": int(is_large.sum()),
        "share in the main cluster": round(main_share(clusters[is_large], groups[is_large]), 3),
        "share in the main cluster, chance": round(float(np.mean(chance)), 3),
        "adjusted mutual information": round(adjusted_mutual_info_score(groups[is_large], clusters[is_large]), 3),
        "adjusted mutual information with the label": round(adjusted_mutual_info_score(labels, clusters), 3),
    }


@torch.inference_mode()
def features(pack: Pack, rows: pd.DataFrame, weights: str) -> NDArray[np.float32]:
    """Mean and maximum over the pixels of MobileNetV2's last features, of ImageNet's weights."""
    network = mobilenet_v2(weights=None).eval()
    network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    patches, parts = load_patches(pack), []
    for batch in np.array_split(rows["row"].to_numpy(), max(len(rows) // 128, 1)):
        maps = network.features(normalise(torch.from_numpy(patches[batch]), 96))
        parts.append(torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], 1).numpy())
    return np.concatenate(parts)


def flattery(known: tuple[NDArray[np.float32], Codes], other: tuple[NDArray[np.float32], Codes], groups: Codes,
             seed: int) -> dict[str, float]:  # fmt: skip
    """AUC on held-out groups of the known patches and on the others, means over the folds."""
    scores = []
    for held in make_folds(known[1], groups, FOLDS, seed):
        train = np.setdiff1d(np.arange(len(groups)), held)
        model = make_pipeline(StandardScaler(), PCA(256, random_state=seed), LogisticRegression(C=1e-3, max_iter=500))
        model.fit(known[0][train], known[1][train])
        on_held = roc_auc_score(known[1][held], model.decision_function(known[0][held]))
        scores.append((on_held, roc_auc_score(other[1], model.decision_function(other[0]))))
    inside, outside = np.mean(scores, axis=0)
    figures = {"held out": inside, "other slides": outside, "flattery": inside - outside}
    lowest, highest = np.min(scores, axis=0)[0], np.max(scores, axis=0)[0]
    return {k: round(float(v), 4) for k, v in (figures | {"lowest fold": lowest, "highest fold": highest}).items()}


def measured(home: Path, args: argparse.Namespace) -> dict[str, object]:
    pack, rows = packed(args.train, args.slides, home)
    labels, pixels = rows["label"].to_numpy(np.int64), np.asarray(pd.factorize(rows["pixels"])[0], np.int64)
    start = time.perf_counter()
    clusters, found = cluster_patches(pack, rows, args.seed, 1 / FOLDS)
    seconds = time.perf_counter() - start
    hues, digests = read_features(pack, rows["row"].to_numpy(np.int64))
    pieces = tissue_pieces(digests, pixels)
    by_hue, _ = find_clusters(hues, candidate_counts(len(rows), 1 / FOLDS), args.seed)
    first = ~rows["pixels"].duplicated().to_numpy(bool)  # repeats agree without being like
    groups = np.asarray(pd.factorize(rows["slide"])[0], np.int64) if args.slides else pieces
    other_pack, other_rows = packed(args.valid, "", home)
    known = features(pack, rows, args.weights), labels
    other = features(other_pack, other_rows, args.weights), other_rows["label"].to_numpy(np.int64)
    return {
        "patches": len(rows),
        "seconds": round(seconds, 1),
        "clusters": found.model_dump(),
        f"purity, {'slides' if args.slides else 'pieces of tissue'}, clusters by hue alone":
            purity(by_hue[first], groups[first], labels[first], args.seed),
        "auc": {
            "random": flattery(known, other, pixels, args.seed),
            "cluster": flattery(known, other, clusters, args.seed),
        },
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--train", "--valid", "--weights"):
        parser.add_argument(name, required=True, type=lambda path: str(Path(path).resolve()))
    parser.add_argument("--slides", default="", help="a CSV id,wsi of the first archive")
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measured(Path(folder), args)
    command = "python -m benchmarks.clusters --train train.zip --valid valid.zip --weights WEIGHTS"
    write_result("clusters", f"{command} --seed {args.seed}", figures)


if __name__ == "__main__":
    main()
