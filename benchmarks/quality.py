"""What each option of training is worth on real patches of colours that training never saw.

    python -m benchmarks.quality --patches train.zip --weights WEIGHTS [--seeds 2 3] [--only stain_jitter=0.1 ...]

Patches of one archive only, whose slides are not known: they are grouped by the colours of their stains, the two groups
farthest from the mean are held out, as slides of another laboratory, and each option is changed alone. AUC moves by
about 0.01 with the seed at this size; processor seconds are counted, so that a busy machine changes little.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score

from benchmarks.beside_fastai import packed
from benchmarks.machine import write_result
from pcam_model.data.pack import Pack, load_patches, load_table
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.evaluation.logits import predict_logits
from pcam_model.training.checkpoint import load_weights
from pcam_model.training.device import best_device
from pcam_model.training.network import ModelConfig, build_network
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.trainer import Trainer

GROUPS, HELD_OUT, SEED = 10, 2, 0
BASE: dict[str, Any] = {"epochs": 3, "batch_size": 64, "lr": 5e-3}
OPTIONS: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "ema_fraction=0": {"ema_fraction": 0},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
    "stain_jitter=0.1": {"stain_jitter": 0.1},
    "max_grad_norm=1": {"max_grad_norm": 1},
    "image_size=128 progressive_sizes=[96]": {"image_size": 128, "progressive_sizes": [96]},
    "no_warp_fraction=0": {"no_warp_fraction": 0},
    "frozen.batchnorm=fixed": {"frozen": "fixed"},
    "frozen.batchnorm=train": {"frozen": "train"},
    "image_size=128": {"image_size": 128},
    "early_stopping_patience=1": {"early_stopping_patience": 1},
    "stain_jitter=0.2": {"stain_jitter": 0.2},
}


def colours(images: NDArray[np.uint8], batch: int = 500) -> NDArray[np.float32]:
    """The hue of all tissue and of its darkest fifth, (N, 4): which stains, not how much of them."""
    result = []
    for start in range(0, len(images), batch):
        some = images[start : start + batch, ::2, ::2].reshape(-1, 48 * 48, 3)
        density = -np.log((some.astype(np.float32) + 1) / 256)
        total = density.sum(2)
        hue = density / np.maximum(total[..., None], 0.05)
        hues = []
        for chosen in (total > 0.3, total >= np.quantile(total, 0.8, axis=1)[:, None]):
            weight = chosen + np.float32(1e-3)
            hues.append((hue * weight[..., None]).sum(1)[:, :2] / weight.sum(1)[:, None])
        result.append(np.concatenate(hues, 1))
    every: NDArray[np.float32] = np.concatenate(result)
    standardised: NDArray[np.float32] = (every - every.mean(0)) / every.std(0)
    return standardised


def split_rows(pack: Pack, train: int, held: int) -> dict[str, NDArray[np.int64]]:
    """Rows to learn from, rows of the same colours and rows of other colours; no pixels are in two splits."""
    table, rng = load_table(pack), np.random.default_rng(SEED)
    kinds = KMeans(GROUPS, n_init=3, random_state=SEED).fit(colours(load_patches(pack)))
    share = table["label"].astype(float).groupby(kinds.labels_).mean()
    mixed = [group for group in share.index if 0.3 < share[group] < 0.8]  # a group of one class has no AUC
    distance = np.linalg.norm(kinds.cluster_centers_, axis=1)
    far = np.isin(kinds.labels_, sorted(mixed, key=lambda group: -distance[group])[:HELD_OUT])
    near = rng.permutation(np.flatnonzero(~far))
    other = ~table["pixels"].iloc[near].isin(table["pixels"].iloc[near[:held]]).to_numpy()
    return {"train": near[other][:train], "near": near[:held], "far": rng.permutation(np.flatnonzero(far))[:held]}


class Trial:
    """Trainings on the same patches that differ in one option."""

    def __init__(self, pack: Pack, weights: str, train: int, held: int):
        self.weights, self.device = weights, best_device()
        self.patches, self.labels = on_device(load_patches(pack), self.device), load_table(pack)["label"].to_numpy(int)
        self.rows = split_rows(pack, train, held)

    def loader(self, split: str, size: int) -> PatchLoader:
        """A loader of one split, with images of `size` pixels."""
        return make_loader(self.patches, self.rows[split], self.labels[self.rows[split]], size, self.device)

    def run(self, keys: dict[str, Any], seed: int) -> dict[str, float]:
        """Figures of a training with these keys."""
        keys, start = dict(keys), time.process_time()
        size, frozen = keys.pop("image_size", 96), keys.pop("frozen", "")
        config = ModelConfig.model_validate({"arch": "mobilenet_v2", "weights": self.weights, "image_size": size})
        network = build_network(config, seed, quiet=True).to(self.device)
        stages: list[Stage] = [Stage(name="finetune", config=FinetuneConfig.model_validate(BASE | keys))]
        if frozen:
            stages.insert(
                0, Stage(name="frozen", config=FrozenConfig.model_validate({"epochs": 1, "batchnorm": frozen}))
            )
        for stage in stages:
            with tempfile.TemporaryDirectory() as folder:
                end = Trainer(
                    stage.prepare(network),
                    self.loader("train", size),
                    self.loader("near", size),
                    stage,
                    BASE["lr"],
                    seed,
                    Path(folder),
                ).run()
                load_weights(Path(end.path), network)
        result = {"processor seconds": time.process_time() - start}
        for split in ("near", "far"):
            for title, logits in zip(
                ("", ", 8 views"), predict_logits(network, self.loader(split, size), True), strict=True
            ):
                chance = (logits[:, 1] - logits[:, 0]).numpy()
                result[f"AUC {split}{title}"] = float(roc_auc_score(self.labels[self.rows[split]], chance))
        return result


def effects(result: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """The mean of each option's figures, and how it differs from the defaults' on the same seeds."""
    base, summary = result["the defaults"], dict[str, dict[str, Any]]()
    for name, runs in result.items():
        summary[name] = {key: round(statistics.mean(run[key] for run in runs), 4) for key in runs[0]}
        summary[name] |= {
            f"{key}, change": round(
                statistics.mean(run[key] - one[key] for run, one in zip(runs, base, strict=True)), 4
            )
            for key in runs[0]
            if key.startswith("AUC")
        }
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="of MobileNetV2's body")
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--held", type=int, default=1500, help="patches of the same colours, and of others")
    parser.add_argument("--seeds", nargs="+", type=int, default=[2])
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    args = parser.parse_args()
    command = f"python -m benchmarks.quality --patches train.zip --weights WEIGHTS --train {args.train}"
    command += f" --held {args.held} --seeds {' '.join(map(str, args.seeds))}"
    result: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(packed(args.patches, Path(folder)), args.weights, args.train, args.held)
        sizes = {split: len(rows) for split, rows in trial.rows.items()}
        for name in dict.fromkeys(["the defaults", *args.only]):
            result[name] = [trial.run(OPTIONS[name], seed) for seed in args.seeds]
            write_result(
                "quality",
                command,
                {"patches": sizes, "base": BASE, "seeds": args.seeds, "options": effects(result)},
            )


if __name__ == "__main__":
    main()
