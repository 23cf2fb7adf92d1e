"""`Trainer` beside a bare PyTorch loop that steps on one resident batch, and what a checkpoint costs.

    python -m benchmarks.fit [--networks resnet50:224 resnet50:96 mobilenet_v2:96] [--batch 64] [--seconds 30]

The bare loop does nothing but forward, backward and AdamW's step. Each figure is the median of rounds that take turns.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.machine import synchronize, write_result
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.training.device import ComputeConfig, Precision, autocast, autocast_dtype, best_device
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.optimizer import make_optimizer
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.trainer import Trainer

VALID = 64


def some_patches(count: int, size: int) -> PatchLoader:
    """Generated patches of two classes, on the device."""
    rng, device = np.random.default_rng(0), best_device()
    array = rng.integers(0, 256, (min(count, 8192), 96, 96, 3), dtype=np.uint8)
    rows = np.arange(count) % len(array)
    return make_loader(on_device(array, device), rows, np.arange(count) % 2, size, device)


def network_of(name: str, size: int) -> PatchNetwork:
    config = ModelConfig.model_validate({"arch": name, "weights": "none", "image_size": size})
    return build_network(config, 0, quiet=True).to(best_device())


def stage_of(name: str, batch: int) -> Stage:
    if name == "frozen":
        return Stage(name="frozen", config=FrozenConfig(epochs=1, batch_size=batch))
    return Stage(name="finetune", config=FinetuneConfig(epochs=1, batch_size=batch, no_warp_fraction=0, ema_fraction=0))


def bare_rate(name: str, size: int, stage: Stage, seconds: float, precision: Precision = "auto") -> float:
    """Images a second of a loop that does nothing but train on one batch."""
    network = stage.prepare(network_of(name, size)).train()
    batch, optimizer = stage.batch_size, make_optimizer(network, stage.lr_multipliers)
    images, labels = some_patches(batch, size).augmented_batch(torch.arange(batch), 0, 0)

    def step() -> None:
        with autocast(images.device, precision):
            logits = network(images)
        functional.cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    synchronize()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not done:
        for _ in range(5):  # so that a GPU is never waited for between steps
            step()
        synchronize()
        done += 5
    return done * batch / (time.perf_counter() - start)


def fit_rate(name: str, size: int, stage: Stage, steps: int, compute: ComputeConfig) -> float:
    """Images a second of an epoch of so many steps, after a few that warm up."""
    batch = stage.batch_size
    with tempfile.TemporaryDirectory() as folder:
        network, valid = stage.prepare(network_of(name, size)), some_patches(VALID, size)
        trainer = Trainer(
            network, some_patches(steps * batch, size), valid, stage, 1e-4, 0, Path(folder), compute=compute
        ).resume()
        for _ in range(min(3, steps - 1)):
            trainer.step()
        trainer.flush_losses()
        warm, trainer.epoch_seconds, trainer.clock = trainer.state.step, 0.0, time.monotonic()
        trainer.run()
        seconds = float(trainer.metrics_log.epochs()[-1]["seconds"])
    return (steps - warm) * batch / seconds


def beside_bare(name: str, size: int, stage: Stage, seconds: float, rounds: int) -> dict[str, float]:
    """Images a second of both, the trainer's share, and what saving every minute takes away."""
    compute, result = ComputeConfig(checkpoint_seconds=1e9), dict[str, list[float]]()
    for _ in range(rounds):
        bare = bare_rate(name, size, stage, seconds)
        steps = max(6, round(bare * seconds / stage.batch_size))
        whole = fit_rate(name, size, stage, steps, compute)
        saves = 3  # in so many seconds, to see them above the noise; a minute has one
        saving = compute.model_copy(update={"checkpoint_steps": max(1, steps // (saves + 1))})
        saved = fit_rate(name, size, stage, steps, saving)
        one = max(0.0, (1 / saved - 1 / whole) * steps * stage.batch_size / saves)
        for key, value in (("bare", bare), ("fit", whole), ("share", whole / bare), ("seconds a checkpoint", one)):
            result.setdefault(key, []).append(value)
        result.setdefault("lost to one a minute", []).append(one / 60)
    return {key: round(statistics.median(values), 4) for key, values in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet50:96", "mobilenet_v2:96"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    figures = {}
    for one in args.networks:
        name, _, size = one.partition(":")
        for title in ("frozen", "finetune"):
            result = beside_bare(name, int(size), stage_of(title, args.batch), args.seconds, args.rounds)
            figures[f"{name} at {size}, {title}"] = result
            print(one, title, result, flush=True)
    numbers = str(autocast_dtype(best_device()) or torch.float32).removeprefix("torch.")
    command = f"python -m benchmarks.fit --networks {' '.join(args.networks)} --batch {args.batch}"
    about = {"unit": "images/s", "batch": args.batch, "numbers": numbers, "threads": torch.get_num_threads()}
    write_result("fit", f"{command} --seconds {args.seconds:g} --rounds {args.rounds}", about | figures)


if __name__ == "__main__":
    main()
