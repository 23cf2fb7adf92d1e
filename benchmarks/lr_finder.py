"""Whether the learning rate that the LR finder suggests trains: seeds x networks x stages, then a short cycle each.

    python -m benchmarks.lr_finder --patches ARCHIVE.zip --weights WEIGHTS [--seeds 0 1 ...] [--networks resnet18 ...]

Three networks: ResNet-18 from random weights on the generated sample (as in the preset sample), MobileNetV2 from
ImageNet's weights and EfficientNet-B0 from random weights, both on real patches. With `--before` the same range test is
also read as if only the training loss were known, and its suggestion is trained with, too. Everything is small: the
figures of one row say only whether training diverged.
"""

import argparse
import statistics
import tempfile
import time
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.beside_fastai import packed
from benchmarks.machine import write_result
from pcam_model.core.errors import DivergenceError
from pcam_model.core.log import log
from pcam_model.core.stage_names import STAGE_NAMES
from pcam_model.data.pack import Pack, build_pack, load_patches, load_table
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.training.device import best_device
from pcam_model.training.lr_curve import LrCurve, exploded_at, read_curve
from pcam_model.training.lr_finder import LrFinder, LrFinderConfig, LrFinderSetup, find_lr
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.trainer import Trainer

DIVERGED_LOSS = 4.0  # nats of validation loss after some epoch
VALID = 200
Loaders = tuple[PatchLoader, PatchLoader]
"""Training and validation split."""


@dataclass(frozen=True)
class Setting:
    """How a network is tried.

    Attributes:
        image_size: in pixels.
        real: on real patches; else on the generated sample.
        pretrained: from given weights; else from random ones.
        lr_ratio: of fine-tuning.
        batch_size: of range test and training; a training split has ten batches at least.
    """

    image_size: int
    real: bool
    pretrained: bool
    lr_ratio: float
    batch_size: int


NETWORKS = {
    "resnet18": Setting(32, False, False, 1, 16),
    "mobilenet_v2": Setting(48, True, True, 10, 64),
    "efficientnet_b0": Setting(32, True, False, 1, 16),
}


def make_stages(setting: Setting, epochs: int) -> list[Stage]:
    """Both stages: one epoch frozen, `epochs` of fine-tuning."""
    finetune = FinetuneConfig(epochs=epochs, batch_size=setting.batch_size, lr_ratio=setting.lr_ratio)
    return [
        Stage(name="frozen", config=FrozenConfig(epochs=1, batch_size=setting.batch_size)),
        Stage(name="finetune", config=finetune),
    ]


def make_loaders(pack: Pack, image_size: int, seed: int, train: int) -> Loaders:
    """Loaders of `train` patches and of `VALID` others, drawn by the seed."""
    device, labels = best_device(), load_table(pack)["label"].to_numpy(int)
    rows = np.random.default_rng(seed).permutation(pack.count)[: train + VALID]
    patches = on_device(load_patches(pack), device)
    first, second = (
        make_loader(patches, split, labels[split], image_size, device) for split in (rows[VALID:], rows[:VALID])
    )
    return first, second


def range_test(network: PatchNetwork, train: PatchLoader, stage: Stage, seed: int, steps: int) -> LrCurve:
    """The curve of the LR finder; the network's weights are restored."""
    with tempfile.TemporaryDirectory() as folder:
        return find_lr(network, train, LrFinderSetup(stage, LrFinderConfig(steps=steps), seed, Path(folder)))


def suggestion_before(network: PatchNetwork, train: PatchLoader, stage: Stage, seed: int, steps: int) -> float:
    """What the valley of the training loss alone suggests; the network's weights are restored."""
    weights = deepcopy(network.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        finder = LrFinder(network, train, LrFinderSetup(stage, LrFinderConfig(steps=steps), seed, Path(folder)))
        while finder.state.step < steps and exploded_at(finder.losses, []) is None:
            finder._step()
            finder._flush()
    network.load_state_dict(weights)
    curve = read_curve(finder.losses, finder.starts, [], stage.name, "valley", steps, Path("lr.json"))
    return curve.suggestions["valley"]


def train_at(lr: float, network: PatchNetwork, loaders: Loaders, stage: Stage, seed: int) -> dict[str, Any]:
    """Metrics of one cycle with this maximum learning rate; the network is changed in place."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(network, *loaders, stage, lr, seed, Path(folder))
        try:
            trainer.run()
        except DivergenceError:
            log.warning("training at %.2g diverged", lr)
        rows = trainer.metrics_log.rows()
    epochs = [row for row in rows if row["kind"] == "epoch"]
    finished = len(epochs) == stage.config.epochs
    worst = max(row["valid_loss"] for row in epochs) if finished else None
    return {
        "lr": float(f"{lr:.3g}"),
        "valid_auc": round(epochs[-1]["valid_auc"], 4) if finished else 0.5,
        "valid_loss": round(epochs[-1]["valid_loss"], 4) if finished else None,
        "worst_valid_loss": None if worst is None else float(f"{worst:.5g}"),
        "skipped_steps": sum(row["kind"] == "skipped" for row in rows),
        "diverged": worst is None or not worst < DIVERGED_LOSS,
    }


def measure(name: str, pack: Pack, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of both stages of one network and seed."""
    setting, start, result = NETWORKS[name], time.process_time(), dict[str, Any]()
    image_size, weights = setting.image_size, args.weights if setting.pretrained else "none"
    config = ModelConfig.model_validate({"arch": name, "weights": weights, "image_size": image_size})
    network = build_network(config, seed, quiet=True).to(best_device())
    loaders = make_loaders(pack, image_size, seed, max(args.train, 10 * setting.batch_size))
    for stage in make_stages(setting, args.epochs):
        inputs = stage.prepare(network), loaders[0], stage, seed, args.steps
        curve = range_test(*inputs)
        row: dict[str, Any] = {"method": curve.method, "informative": curve.informative, "reason": curve.reason}
        row["stable_lr"] = float(f"{curve.stable_lr:.3g}")
        if args.before:
            row["before"] = train_at(suggestion_before(*inputs), deepcopy(network), loaders, stage, seed)
        result[stage.name] = row | train_at(curve.suggestion, network, loaders, stage, seed)
    return result | {"cpu_seconds": round(time.process_time() - start, 1)}


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Figures over the seeds of one network, by stage."""
    result: dict[str, Any] = {}
    for stage in STAGE_NAMES:
        stages = [row[stage] for row in rows.values()]
        result[stage] = {"informative": sum(row["informative"] for row in stages), **trained(stages)}
        if all("before" in row for row in stages):
            result[stage]["before"] = trained([row["before"] for row in stages])
    return result


def trained(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures over the trainings of the seeds."""
    lrs = [row["lr"] for row in rows]
    return {
        "of": len(rows),
        "lr": [min(lrs), statistics.median(lrs), max(lrs)],
        "diverged": sum(row["diverged"] for row in rows),
        "skipped_steps": sum(row["skipped_steps"] for row in rows),
        "worst_valid_loss": max((row["worst_valid_loss"] for row in rows if row["worst_valid_loss"]), default=None),
        "median_auc": statistics.median(row["valid_auc"] for row in rows),
    }


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=Path, help="a Kaggle-layout .zip, for all networks but resnet18")
    parser.add_argument("--weights", type=lambda path: str(Path(path).resolve()), help="of MobileNetV2's body")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(10)))
    parser.add_argument("--train", type=int, default=320, help="patches to learn from, ten batches at least")
    parser.add_argument("--epochs", type=int, default=2, help="of fine-tuning; the frozen stage has one")
    parser.add_argument("--steps", type=int, default=LrFinderConfig().steps, help="of each range test")
    parser.add_argument("--before", action="store_true", help="train at the rate of the training loss alone, too")
    args = parser.parse_args(argv)
    if args.patches is None and any(NETWORKS[name].real for name in args.networks):
        parser.error("--patches is missing; only resnet18 is tried on generated patches")
    if args.weights is None and any(NETWORKS[name].pretrained for name in args.networks):
        parser.error("--weights is missing; only mobilenet_v2 needs it")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    figures: dict[str, Any] = {"epochs": [1, args.epochs]}
    with tempfile.TemporaryDirectory() as folder:
        packs = Path(folder, "packs")
        sample = SourceConfig(kind="sample", max_patches=args.train + VALID)
        generated = build_pack(fetch(sample, 2), sample, packs, 2)
        real = packed(args.patches, packs) if args.patches else generated
        for name in args.networks:
            rows = {}
            for seed in args.seeds:
                rows[f"seed {seed}"] = measure(name, real if NETWORKS[name].real else generated, seed, args)
                print(name, seed, rows[f"seed {seed}"], flush=True)
            figures[name] = {**vars(NETWORKS[name]), "summary": summary(rows), **rows}
    command = "python -m benchmarks.lr_finder --patches ARCHIVE.zip --weights WEIGHTS"
    command += f" --networks {' '.join(args.networks)} --seeds {' '.join(map(str, args.seeds))}"
    command += f" --train {args.train} --epochs {args.epochs} --steps {args.steps}"
    command += " --before" if args.before else ""
    write_result("lr_finder", command, figures)


if __name__ == "__main__":
    main()
