"""LR search, frozen training and fine-tuning of a tiny network; as a script, in a process that may be killed.

python stages.py FOLDER [STAGE:STEP:SIGNAL ...]
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch

from pcam_model.data.patch_loader import PatchLoader, batches
from pcam_model.training.device import ComputeConfig, tune_malloc
from pcam_model.training.lr_finder import SEARCH, LrCurve, LrFinderConfig, find_lr
from pcam_model.training.network import ModelConfig, PatchNetwork, build_network
from pcam_model.training.stage import FinetuneConfig, FrozenConfig, Stage
from pcam_model.training.trainer import Trainer

SIZE, SEED = 32, 3
FROZEN = Stage(name="frozen", config=FrozenConfig(epochs=2, batch_size=8)).resting_on({})
TUNED = Stage(name="finetune", config=FinetuneConfig(epochs=2, batch_size=8)).resting_on({})
STEPS = {"search": 24, "frozen": 12, "finetune": 12}
PLACES = {"search": FROZEN.number + SEARCH, "frozen": FROZEN.number, "finetune": TUNED.number}


@dataclass(frozen=True)
class Signalling(PatchLoader):
    """A part that gets signals in the middle of given steps."""

    config: tuple[tuple[int, int], ...] = ()

    @contextmanager
    def _signal(self, epoch: int, k: int) -> Iterator[None]:
        for step, number in self.config:
            if step == epoch * (len(self) // 8) + k:
                os.kill(os.getpid(), number)
        yield

    def augmented(self, which, seed, *place, **keys):  # type: ignore[no-untyped-def]
        with self._signal(*place[1:]):
            return super().augmented(which, seed, *place, **keys)


def part(count: int = 48, seed: int = 0) -> PatchLoader:
    """Patches whose tumours are darker: easy to learn."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    patches = draw.integers(90, 250, (count, 96, 96, 3)) - 60 * labels[:, None, None, None]
    ids = [f"patch{i}" for i in range(count)]
    whole = torch.from_numpy(patches.max_grad_norm(0).astype(np.uint8))
    return batches(whole, np.arange(count), labels, SIZE, torch.device("cpu"), ids)


def signalling(*config: tuple[int, int]) -> PatchLoader:
    """The part, with signals in the middle of steps (0 is the first)."""
    whole = part()
    return Signalling(**{field.name: getattr(whole, field.name) for field in fields(PatchLoader)}, config=config)


def fresh(name: str = "mobilenet_v2") -> PatchNetwork:
    return build_network(ModelConfig.model_validate({"name": name, "weights": "none"}), seed=1, say=lambda _: None)


def search(folder: Path, train: PatchLoader, compute: ComputeConfig | None = None) -> LrCurve:
    folder.mkdir(parents=True, exist_ok=True)
    network = FROZEN.prepare(fresh())
    config, place = LrFinderConfig(steps=STEPS["search"]), ("frozen", FROZEN.number)
    return find_lr(network, train, config, FROZEN.multipliers, 8, SEED, place, folder, compute=compute)


def trainer(folder: Path, stage: Stage, train: PatchLoader, compute: ComputeConfig | None = None) -> Trainer:
    folder.mkdir(parents=True, exist_ok=True)
    return Trainer(stage.prepare(fresh()), train, part(16, 1), stage, 1e-3, SEED, folder, compute=compute)


def run(name: str, folder: Path, train: PatchLoader, compute: ComputeConfig | None = None) -> str:
    """One of the three, to its end; what it comes to, for an exact comparison."""
    if name == "search":
        return search(folder, train, compute).model_dump_json(exclude={"path"})
    return (
        trainer(folder, FROZEN if name == "frozen" else TUNED, train, compute).run().model_dump_json(exclude={"path"})
    )


def main() -> None:
    tune_malloc()
    home, every = Path(sys.argv[1]), ComputeConfig(checkpoint_steps=1)
    planned = [(name, int(step), int(number)) for name, step, number in (word.split(":") for word in sys.argv[2:])]
    for name in STEPS:
        config = [(step, number) for stage, step, number in planned if stage == name]
        print("end", run(name, home / name, signalling(*config), every), flush=True)


if __name__ == "__main__":
    assert signal.SIGKILL == 9
    main()
