"""LR range test, frozen training and fine-tuning of a small network; as a script, in processes that may be killed.

python stages.py FOLDER THREADS PROCESSES, where PROCESSES is JSON: [[subfolder, [[stage, step, signal], ...]], ...]
"""

import json
import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pcam_model.core.rng import StepKey
from pcam_model.data.augment import ViewConfig
from pcam_model.data.patch_loader import PatchLoader, make_loader
from pcam_model.training.batch import BatchSource, BatchSpec, TrainBatch
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.device import ComputeConfig
from pcam_model.training.lr_curve import LrCurve
from pcam_model.training.lr_finder import STAGE_OFFSET, LrFinderConfig, LrFinderSetup, find_lr
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.trainer import Trainer

SIZE, SEED, BATCH_SIZE = 32, 3, 8
MAX_LR = 1e-3


def frozen(**keys: object) -> Stage:
    """The frozen stage: two epochs of batches of 8, and these keys."""
    config = FrozenConfig.model_validate({"epochs": 2, "batch_size": BATCH_SIZE} | keys)
    return Stage(name="frozen", config=config).with_inputs({})


def finetune(**keys: object) -> Stage:
    """The fine-tuning stage: two epochs of batches of 8, and these keys."""
    config = FinetuneConfig.model_validate({"epochs": 2, "batch_size": BATCH_SIZE} | keys)
    return Stage(name="finetune", config=config).with_inputs({})


FROZEN, FINETUNE = frozen(), finetune()
STEPS = {"search": 24, "frozen": 12, "finetune": 12}


@dataclass(frozen=True)
class StepLoader(PatchLoader):
    """A loader that knows the step whose patches are gathered."""

    def step_of(self, positions: Tensor) -> int | None:
        """The step of a stage or search whose batch these positions are; None for those of a validation."""
        steps_per_epoch = len(self) // BATCH_SIZE
        for stage in (1, 2, 1 + STAGE_OFFSET, 2 + STAGE_OFFSET):
            for epoch in range(-(-max(STEPS.values()) // steps_per_epoch)):
                for k, rows in enumerate(self.epoch_order(SEED, stage, epoch).split(BATCH_SIZE)):
                    if torch.equal(rows, positions):
                        return epoch * steps_per_epoch + k
        return None


@dataclass(frozen=True)
class SignallingLoader(StepLoader):
    """A loader that sends its process signals in the middle of given steps, once each."""

    signals: list[tuple[int, int]] = field(default_factory=list)

    def gather(self, positions: Tensor) -> Tensor:
        at = self.step_of(positions)
        due = [signal for signal in self.signals if signal[0] == at]
        for signal in due:
            self.signals.remove(signal)
            os.kill(os.getpid(), signal[1])
        return super().gather(positions)


def small_loader(count: int = 48, seed: int = 0) -> PatchLoader:
    """Patches whose tumours are darker: easy to learn."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    patches = draw.integers(90, 250, (count, 96, 96, 3)) - 60 * labels[:, None, None, None]
    ids = [f"patch{i}" for i in range(count)]
    tensor = torch.from_numpy(patches.clip(0).astype(np.uint8))
    return make_loader(tensor, np.arange(count), labels, SIZE, torch.device("cpu"), ids)


def signalling_loader(*signals: tuple[int, int], count: int = 48) -> PatchLoader:
    """The loader, with signals in the middle of steps (0 is the first)."""
    loader = small_loader(count)
    return SignallingLoader(**vars(loader), signals=list(signals))


def batch(
    loader: PatchLoader, network: PatchNetwork, key: StepKey, view_config: ViewConfig | None = None
) -> TrainBatch:
    """The loader's first 8 patches as the batch of a step."""
    spec = BatchSpec.whole(torch.arange(BATCH_SIZE), key, view_config or ViewConfig(loader.image_size))
    return BatchSource(loader, network).batch(spec)


def new_network(arch: str = "mobilenet_v2") -> PatchNetwork:
    return build_network(
        ModelConfig.model_validate({"arch": arch, "weights": "none", "image_size": SIZE}), seed=1, quiet=True
    )


def search(folder: Path, train: PatchLoader, compute: ComputeConfig | None = None) -> LrCurve:
    folder.mkdir(parents=True, exist_ok=True)
    config = LrFinderConfig(steps=STEPS["search"])
    return find_lr(
        FROZEN.prepare(new_network()), train, LrFinderSetup(FROZEN, config, SEED, folder, compute or ComputeConfig())
    )


def trainer(
    folder: Path,
    stage: Stage,
    train: PatchLoader | None = None,
    compute: ComputeConfig | None = None,
    callbacks: Callbacks | None = None,
    max_lr: float = MAX_LR,
    arch: str = "mobilenet_v2",
) -> Trainer:
    """A trainer that has not resumed yet."""
    folder.mkdir(parents=True, exist_ok=True)
    network = stage.prepare(new_network(arch))
    valid = small_loader(16, seed=1)
    return Trainer(network, train or small_loader(), valid, stage, max_lr, SEED, folder, callbacks, compute)


def run(
    name: str, folder: Path, train: PatchLoader, compute: ComputeConfig | None = None, arch: str = "mobilenet_v2"
) -> str:
    """Run the search or a stage to its end; its result, for an exact comparison."""
    if name == "search":
        return search(folder, train, compute).model_dump_json(exclude={"path"})
    stage = FROZEN if name == "frozen" else FINETUNE
    return trainer(folder, stage, train, compute, arch=arch).run().model_dump_json(exclude={"path"})


def main() -> None:
    """Run all stages in a new process for each item of PROCESSES, and print its exit code."""
    folder, threads, processes = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
    for name, signals in processes:
        pid = os.fork()
        if not pid:
            run_all(folder / name, threads, signals)
            return
        print("exit", name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)


def run_all(folder: Path, threads: int, signals: list[tuple[str, int, int]]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    torch.set_num_threads(threads)
    for stage in STEPS:
        loader = signalling_loader(*[(step, number) for name, step, number in signals if name == stage])
        print("end", run(stage, folder / stage, loader, ComputeConfig(checkpoint_steps=1)), flush=True)


if __name__ == "__main__":
    main()
