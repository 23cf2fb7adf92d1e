"""Images per second of training and of the data path alone, beside a bare step on one resident batch.

    python -m benchmarks.throughput [--networks resnet50:224 mobilenet_v2:96 ...] [--seconds 15]

The patches are generated; each figure is the median of rounds that take turns: a machine's drift hits all alike.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from benchmarks.machine import synchronize, write_result
from pcam_model.core.rng import StepKey
from pcam_model.data.augment import ViewConfig
from pcam_model.data.patch_loader import PatchLoader, make_loader, on_device
from pcam_model.training.batch import BatchSource, BatchSpec, TrainBatch
from pcam_model.training.device import ComputeConfig, autocast_dtype, best_device, tune_malloc
from pcam_model.training.network import ModelConfig, build_network
from pcam_model.training.optimizer import FROZEN_LR_MULTIPLIERS, layer_lr_multipliers
from pcam_model.training.step import train_step
from pcam_model.training.train_state import TrainState, create_train_state

PATCHES, ROUNDS = 2048, 3


@dataclass(frozen=True)
class ResidentBatch(TrainBatch):
    """A batch whose images were made beforehand."""

    made: torch.Tensor

    def patches(self) -> torch.Tensor:
        return self.made

    def images(self, patches: torch.Tensor, rows: slice) -> torch.Tensor:
        return patches[rows]


def some_patches(size: int) -> PatchLoader:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 256, (PATCHES, 96, 96, 3), dtype=np.uint8)
    device = best_device()
    return make_loader(on_device(array, device), np.arange(PATCHES), np.arange(PATCHES) % 2, size, device)


def measure_rate(work: Callable[[int], object], batch: int, seconds: float) -> float:
    """Images a second of `work(k)`, which handles batch k; one call goes before the clock starts."""
    work(0)
    synchronize()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or not done:
        work(done + 1)
        done += 1
    synchronize()
    return done * batch / (time.perf_counter() - start)


def measure(name: str, size: int, batch: int, seconds: float) -> dict[str, float]:
    tune_malloc()
    loader = some_patches(size)
    network = build_network(ModelConfig.model_validate({"arch": name, "weights": "none", "image_size": size}), 0)
    network = network.to(loader.device)
    source = BatchSource(loader, network)

    def make_batch(k: int) -> TrainBatch:
        positions = (torch.arange(batch) + k * batch) % len(loader)
        return source.batch(BatchSpec.whole(positions, StepKey(0, 0, 0, k), ViewConfig(size)))

    def make_images(made: TrainBatch) -> torch.Tensor:
        return made.images(made.patches(), slice(0, batch))

    resident = ResidentBatch(**vars(make_batch(0)), made=make_images(make_batch(0)))

    def make_state(frozen: bool) -> TrainState:
        network.freeze() if frozen else network.unfreeze()
        multipliers = FROZEN_LR_MULTIPLIERS if frozen else layer_lr_multipliers(10)
        return create_train_state(network.train(), multipliers, loader.device, ComputeConfig())

    def augment_only(k: int) -> None:
        make_images(make_batch(k))

    def bare_step(state: TrainState, _k: int) -> None:
        train_step(state, resident, 1e-4, 0.9)

    def full_step(state: TrainState, k: int) -> None:
        train_step(state, make_batch(k), 1e-4, 0.9)

    result: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        data = measure_rate(augment_only, batch, seconds / 3)
        result.setdefault("data path", []).append(data)
        for title, frozen in (("frozen", True), ("fine-tuning", False)):
            state = make_state(frozen)
            bare = measure_rate(partial(bare_step, state), batch, seconds)
            whole = measure_rate(partial(full_step, state), batch, seconds)
            result.setdefault(title, []).append(whole)
            result.setdefault(f"{title}, share of the bare step", []).append(whole / bare)
    return {name: round(statistics.median(values), 3) for name, values in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["resnet50:224", "resnet50:96", "mobilenet_v2:96"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15)
    args = parser.parse_args()
    figures = {}
    for one in args.networks:
        name, _, size = one.partition(":")
        figures[f"{name} at {size}"] = measure(name, int(size), args.batch, args.seconds)
        print(one, figures[f"{name} at {size}"], flush=True)
    numbers = str(autocast_dtype(best_device()) or torch.float32).removeprefix("torch.")
    write_result(
        "throughput",
        f"python -m benchmarks.throughput --batch {args.batch} --seconds {args.seconds:g}",
        {"unit": "images/s", "batch": args.batch, "numbers": numbers, "threads": torch.get_num_threads()} | figures,
    )


if __name__ == "__main__":
    main()
