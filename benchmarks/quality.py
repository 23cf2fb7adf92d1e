"""What each option of training is worth on real patches of stains that training never saw, and what it costs.

    python -m benchmarks.quality --patches train.zip --weights WEIGHTS [--seeds 2 3 4] [--only stain_jitter=0.2 ...]

Slides are not known, so clusters of like stain stand for them: each seed draws a fifth of the clusters to hold out,
then the preset `pcam`, at 96 pixels and for three epochs, is changed in one option at a time. Changes of AUC are means
over the seeds, with intervals by bootstrap over the held-out clusters; `seconds` are the processor's, as a multiple of
the preset's, so that a busy machine changes little.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.beside_fastai import packed
from benchmarks.held_out_clusters import Array, Data, draw_parts, read_data, resample_clusters
from benchmarks.machine import write_result
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.evaluation.logits import predict_logits
from pcam_model.presets import preset_keys
from pcam_model.training.checkpoint import load_weights
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.trainer import Trainer

DRAWS, PERCENTILES = 300, (2.5, 97.5)
BASE: dict[str, Any] = preset_keys("pcam")["finetune"] | {"epochs": 3, "progressive_sizes": []}
PRESET, VIEWS = "the preset pcam", "8 views (score.tta)"
OPTIONS: dict[str, dict[str, Any]] = {
    PRESET: {},
    "stain_jitter=0": {"stain_jitter": 0},
    "stain_jitter=0.2": {"stain_jitter": 0.2},
    "stain_jitter=0.3": {"stain_jitter": 0.3},
    "max_grad_norm=0": {"max_grad_norm": 0},
    "label_smoothing=0.05": {"label_smoothing": 0.05},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
    "ema_fraction=0": {"ema_fraction": 0},
    "no_warp_fraction=0": {"no_warp_fraction": 0},
    "epochs=6": {"epochs": 6},
    "frozen.batchnorm=fixed": {"frozen": "fixed"},
    "frozen.batchnorm=train": {"frozen": "train"},
    "image_size=128 progressive_sizes=[96]": {"image_size": 128, "progressive_sizes": [96]},
    "image_size=128": {"image_size": 128},
}


class Outcome(NamedTuple):
    """Log odds of patches of the same clusters and of held-out ones, by number of views, and seconds of training."""

    near: dict[str, Array]
    held: dict[str, Array]
    seconds: float


def train_network(
    config: ModelConfig, stages: Sequence[Stage], train: PatchLoader, valid: PatchLoader, seed: int
) -> PatchNetwork:
    """A network after the stages, each at the rate of `BASE`."""
    network = build_network(config, seed, quiet=True).to(train.device)
    for stage in stages:
        with tempfile.TemporaryDirectory() as folder:
            end = Trainer(stage.prepare(network), train, valid, stage, BASE["lr"], seed, Path(folder)).run()
            load_weights(Path(end.path), network)
    return network


class Trial:
    """Trainings on the same patches that differ in one option."""

    def __init__(self, data: Data, weights: str, seed: int, train: int, held: int):
        self.data, self.weights, self.seed = data, weights, seed
        self.rows = draw_parts(data, seed, train, held)
        self.samples = resample_clusters(data.clusters[self.rows["held"]], seed, DRAWS)

    def run(self, keys: dict[str, Any], views: int) -> Outcome:
        """The outcome of a training with these keys, of one view or of 8 as well."""
        keys, start = dict(keys), time.process_time()
        size, frozen = keys.pop("image_size", 96), keys.pop("frozen", "")
        config = ModelConfig.model_validate({"arch": "mobilenet_v2", "weights": self.weights, "image_size": size})
        stages = [Stage(name="finetune", config=FinetuneConfig.model_validate(BASE | keys))]
        if frozen:
            head = FrozenConfig.model_validate({"epochs": 1, "batchnorm": frozen})
            stages.insert(0, Stage(name="frozen", config=head))
        loaders = {part: self.data.loader(rows, size) for part, rows in self.rows.items()}
        network = train_network(config, stages, loaders["train"], loaders["random"], self.seed)
        seconds = time.process_time() - start
        near, held = (_log_odds(network, loaders[part], views) for part in ("random", "held"))
        return Outcome(near, held, seconds)

    def auc(self, outcome: Outcome, views: str) -> tuple[float, Array]:
        """AUC on the same clusters, and on the held-out ones as they are and of each bootstrap sample, (1 + DRAWS,)."""
        labels, scores = self.data.labels[self.rows["held"]], outcome.held[views]
        held = [roc_auc_score(labels[rows], scores[rows]) for rows in self.samples]
        return float(roc_auc_score(self.data.labels[self.rows["random"]], outcome.near[views])), np.asarray(held)


def _log_odds(network: PatchNetwork, loader: PatchLoader, views: int) -> dict[str, Array]:
    single, mean = predict_logits(network, loader, tta=views > 1)
    found = {"1": single, "8": mean} if views > 1 else {"1": single}
    return {name: (logits[:, 1] - logits[:, 0]).double().numpy() for name, logits in found.items()}


def effect(trials: Sequence[Trial], base: Sequence[Outcome], outcomes: Sequence[Outcome], views: str) -> dict[str, Any]:
    """Means of an option's figures over the seeds, and their change from the preset's with its interval."""
    near, held = zip(*(trial.auc(one, views) for trial, one in zip(trials, outcomes, strict=True)), strict=True)
    near_base, held_base = zip(*(trial.auc(one, "1") for trial, one in zip(trials, base, strict=True)), strict=True)
    changes = np.mean(np.subtract(held, held_base), axis=0)
    seconds = [one.seconds / other.seconds for one, other in zip(outcomes, base, strict=True)]
    return {
        "AUC, same clusters": round(float(np.mean(near)), 4),
        "AUC, held-out clusters": round(float(np.mean(held, axis=0)[0]), 4),
        "change, same clusters": round(float(np.mean(np.subtract(near, near_base))), 4),
        "change, held-out clusters": round(float(changes[0]), 4),
        "interval of that change": np.round(np.percentile(changes[1:], PERCENTILES), 4).tolist(),
        "changes by seed": np.round(np.subtract(held, held_base)[:, 0], 4).tolist(),
        "seconds": round(statistics.mean(seconds), 2),
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=Path, required=True)
    parser.add_argument("--weights", required=True, help="of MobileNetV2's body")
    parser.add_argument("--train", type=int, default=4000)
    parser.add_argument("--held", type=int, default=1500)
    parser.add_argument("--seeds", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--only", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    args = parser.parse_args()
    command = f"python -m benchmarks.quality --patches train.zip --weights WEIGHTS --train {args.train}"
    command += f" --held {args.held} --seeds {' '.join(map(str, args.seeds))}"
    with tempfile.TemporaryDirectory() as folder:
        data = read_data(packed(args.patches, Path(folder)))
        trials = [Trial(data, args.weights, seed, args.train, args.held) for seed in args.seeds]
        base = [trial.run({}, views=8) for trial in trials]
        options = {PRESET: effect(trials, base, base, "1"), VIEWS: effect(trials, base, base, "8")}
        for name in [name for name in args.only if name != PRESET]:
            options[name] = effect(trials, base, [trial.run(OPTIONS[name], views=1) for trial in trials], "1")
            figures = {"preset": BASE, "seeds": args.seeds, "options": options}
            write_result("quality", command, figures, options[name])


if __name__ == "__main__":
    main()
