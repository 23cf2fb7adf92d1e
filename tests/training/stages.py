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

from pcam_model.data.patch_loader import Batches, batches
from pcam_model.training.device import ComputePlan, keep_memory
from pcam_model.training.trainer import Fit
from pcam_model.training.lr_finder import SEARCH, LrCurve, SearchPlan, search_lr
from pcam_model.training.network import NetworkPlan, PatchNetwork, build_network
from pcam_model.training.stage import FrozenPlan, Stage, TunedPlan

SIZE, SEED = 32, 3
FROZEN = Stage(name="frozen", plan=FrozenPlan(epochs=2, batch=8)).resting_on({})
TUNED = Stage(name="tuned", plan=TunedPlan(epochs=2, batch=8)).resting_on({})
STEPS = {"search": 24, "frozen": 12, "tuned": 12}
PLACES = {"search": FROZEN.number + SEARCH, "frozen": FROZEN.number, "tuned": TUNED.number}


@dataclass(frozen=True)
class Signalling(Batches):
    """A part that gets signals in the middle of given steps."""

    plan: tuple[tuple[int, int], ...] = ()

    @contextmanager
    def _signal(self, epoch: int, k: int) -> Iterator[None]:
        for step, number in self.plan:
            if step == epoch * (len(self) // 8) + k:
                os.kill(os.getpid(), number)
        yield

    def augmented(self, which, seed, *place, **keys):  # type: ignore[no-untyped-def]
        with self._signal(*place[1:]):
            return super().augmented(which, seed, *place, **keys)


def part(count: int = 48, seed: int = 0) -> Batches:
    """Patches whose tumours are darker: easy to learn."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    patches = draw.integers(90, 250, (count, 96, 96, 3)) - 60 * labels[:, None, None, None]
    ids = [f"patch{i}" for i in range(count)]
    whole = torch.from_numpy(patches.clip(0).astype(np.uint8))
    return batches(whole, np.arange(count), labels, SIZE, torch.device("cpu"), ids)


def signalling(*plan: tuple[int, int]) -> Batches:
    """The part, with signals in the middle of steps (0 is the first)."""
    whole = part()
    return Signalling(**{field.name: getattr(whole, field.name) for field in fields(Batches)}, plan=plan)


def fresh(name: str = "mobilenet_v2") -> PatchNetwork:
    return build_network(NetworkPlan.model_validate({"name": name, "weights": "none"}), seed=1, say=lambda _: None)


def search(folder: Path, train: Batches, compute: ComputePlan | None = None) -> LrCurve:
    folder.mkdir(parents=True, exist_ok=True)
    network = FROZEN.prepare(fresh())
    plan, place = SearchPlan(steps=STEPS["search"]), ("frozen", FROZEN.number)
    return search_lr(network, train, plan, FROZEN.multipliers, 8, SEED, place, folder, compute=compute)


def fit(folder: Path, stage: Stage, train: Batches, compute: ComputePlan | None = None) -> Fit:
    folder.mkdir(parents=True, exist_ok=True)
    return Fit(stage.prepare(fresh()), train, part(16, 1), stage, 1e-3, SEED, folder, compute=compute)


def run(name: str, folder: Path, train: Batches, compute: ComputePlan | None = None) -> str:
    """One of the three, to its end; what it comes to, for an exact comparison."""
    if name == "search":
        return search(folder, train, compute).model_dump_json(exclude={"path"})
    return fit(folder, FROZEN if name == "frozen" else TUNED, train, compute).run().model_dump_json(exclude={"path"})


def main() -> None:
    keep_memory()
    home, every = Path(sys.argv[1]), ComputePlan(checkpoint_steps=1)
    planned = [(name, int(step), int(number)) for name, step, number in (word.split(":") for word in sys.argv[2:])]
    for name in STEPS:
        plan = [(step, number) for stage, step, number in planned if stage == name]
        print("end", run(name, home / name, signalling(*plan), every), flush=True)


if __name__ == "__main__":
    assert signal.SIGKILL == 9
    main()
