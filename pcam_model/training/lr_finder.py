"""LR search (Smith 2015, fastai's numbers): how high may the rate be before the loss climbs?"""

import json
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pcam_model.core.errors import ConfigError, Interrupted
from pcam_model.core.files import write_atomic
from pcam_model.core.schema import Config, Record
from pcam_model.data.augment import ViewConfig
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.checkpoint import (
    LATEST,
    load_state,
    read_checkpoint_metadata,
    refuse_other_training,
    save_state,
)
from pcam_model.training.device import ComputeConfig
from pcam_model.training.interrupt import RESUME_HINT, StopRequest, graceful_stop
from pcam_model.training.network import PatchNetwork
from pcam_model.training.step import ENGINE, loss_of, new_state, train_step

LOWEST, HIGHEST = 1e-7, 10.0
MOMENTUM = 0.9  # AdamW's usual one: the search runs without the cycle
SMOOTHING, DIVERGED = 0.98, 4.0
DROP_FIRST, DROP_LAST = 10, 5
PLATEAU = 0.5
LOOK = 5  # steps between two looks at the losses, which the device has to finish for
SEARCH = 10  # added to a stage's number: a place of its own

SuggestionMethod = Literal["valley", "steep", "minimum"]


class LrFinderConfig(Config):
    """How the learning rate is looked for, where a stage's rate is `find`."""

    steps: int = Field(100, ge=20, le=2000)
    """Steps from 1e-7 to 10, exponentially spaced."""
    method: SuggestionMethod = "valley"
    """valley: two thirds from the plateau to the lowest loss; steep: the steepest fall; minimum: lowest loss / 10."""


class LrCurve(Record):
    """What the search saw and what it suggests."""

    path: str
    stage: str
    lrs: list[float]
    losses: list[float]
    """Smoothed (debiased exponential mean, 0.98)."""
    suggestion: float
    method: SuggestionMethod
    suggestions: dict[str, float]
    """What each of the ways would have suggested."""


def find_lr(
    network: PatchNetwork,
    part: PatchLoader,
    config: LrFinderConfig,
    multipliers: list[float],
    batch_size: int,
    seed: int,
    stage: tuple[str, int],
    folder: Path,
    callbacks: Callable[[int, int], None] | None = None,
    view_config: ViewConfig | None = None,
    compute: ComputeConfig | None = None,
    inputs: dict[str, Any] | None = None,
) -> LrCurve:
    """Train with a growing rate until the loss explodes; network and random state are left as they were.

    Goes on from `folder`'s checkpoint where there is one that rests on the same `inputs`, and ends where an unbroken
    search does.

    Raises:
        ConfigError: the loss was not finite from the start, so nothing can be suggested; or the checkpoint is of another
            search.
        Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
    """
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        with graceful_stop() as stop:
            place = (seed, stage[1] + SEARCH)
            lr_finder = LrFinder(
                network, part, config, multipliers, batch_size, place, folder, view_config, compute, inputs
            )
            lrs, losses = lr_finder.run(stop, callbacks or (lambda done, steps: None))
    finally:
        network.load_state_dict(before)
        network.set_microbatches(1)
    suggestions = suggest(np.array(lrs), np.array(losses), stage[0])
    curve = LrCurve(
        path=str(folder / "lr.json"),
        stage=stage[0],
        lrs=lrs,
        losses=losses,
        suggestion=suggestions[config.method],
        method=config.method,
        suggestions=suggestions,
    )
    write_atomic(folder / "lr.json", json.dumps(curve.model_dump(exclude={"path"}), indent=1).encode())
    (folder / LATEST).unlink(missing_ok=True)
    return curve


class LrFinder:
    """The steps of a search, and what they lost."""

    def __init__(
        self,
        network: PatchNetwork,
        part: PatchLoader,
        config: LrFinderConfig,
        multipliers: list[float],
        batch_size: int,
        place: tuple[int, int],
        folder: Path,
        view_config: ViewConfig | None,
        compute: ComputeConfig | None,
        inputs: dict[str, Any] | None,
    ):
        self.part, self.steps, self.batch_size, self.place = part, config.steps, batch_size, place
        self.view_config, self.path, self.compute = (
            view_config or ViewConfig(part.size),
            folder / LATEST,
            compute or ComputeConfig(),
        )
        self.untrained = deepcopy(network).train()
        self.state = new_state(network.train(), multipliers, part.device, self.compute)
        self.losses, self.starts = list[float](), list[float]()
        self.unread: list[tuple[Tensor, Tensor]] = []
        self.saved = time.monotonic()
        self.identity = {
            **(inputs or {}),
            "multipliers": multipliers,
            "steps": config.steps,
            "batch": batch_size,
            "place": list(place),
            "patches": len(part),
            "sight": asdict(self.view_config),
            "engine": ENGINE,
        }
        if self.path.is_file():
            found = read_checkpoint_metadata(self.path)
            refuse_other_training(self.path, found["identity"], self.identity)
            load_state(self.path, self.state)
            self.untrained.set_microbatches(self.state.network.parts)
            self.losses, self.starts = found["losses"], found["starts"]
            print(f"LR search: going on from step {self.state.step} of {self.steps}")

    def run(self, stop: StopRequest, tell: Callable[[int, int], None]) -> tuple[list[float], list[float]]:
        """Rates and smoothed losses until the loss explodes."""
        while self.state.step < self.steps and not exploded(self.losses):
            self._one_step()
            while self.state.step % LOOK and self.state.step < self.steps and not self._due(stop):
                self._one_step()
            self._look()
            tell(self.state.step, self.steps)
            if self._due(stop):
                self._checkpoint()
            if stop.asked:
                where = f"LR search stopped by {stop.asked.name} after step {self.state.step} of {self.steps}"
                print(f"{where}; {RESUME_HINT}")
                raise Interrupted(f"{where}; {RESUME_HINT}")
        return curve_of(self.losses, self.starts, self.steps)

    def _one_step(self) -> None:
        step = self.state.step
        epoch, k = divmod(step, len(self.part) // self.batch_size)
        which = self.part.order(*self.place, epoch)[k * self.batch_size : (k + 1) * self.batch_size]
        images, labels = self.part.augmented(which, *self.place, epoch, k, view_config=self.view_config)
        place = (*self.place, epoch, k)
        with torch.no_grad():
            start = loss_of(self.untrained, images, labels, *place, precision=self.state.precision)
        loss = train_step(self.state, images, labels, lr_at(step, self.steps), MOMENTUM, *place)
        self.unread.append((loss, start))

    def _look(self) -> None:
        for loss, start in torch.stack([torch.stack(pair) for pair in self.unread]).tolist():
            self.losses.append(loss)
            self.starts.append(start)
        self.unread.clear()

    def _due(self, stop: StopRequest) -> bool:
        """Whether it is time for a checkpoint."""
        every = self.compute.checkpoint_steps
        late = time.monotonic() - self.saved > self.compute.checkpoint_seconds
        return bool(stop.asked) or late or bool(every and self.state.step % every == 0)

    def _checkpoint(self) -> None:
        place = {"identity": self.identity, "losses": self.losses, "starts": self.starts}
        save_state(self.path, self.state, place)
        self.saved = time.monotonic()


def lr_at(step: int, steps: int) -> float:
    """The rate of a step (0 .. steps - 1): exponentially from 1e-7 to 10."""
    return float(LOWEST * (HIGHEST / LOWEST) ** (step / (steps - 1)))


def exploded(losses: list[float]) -> int:
    """After how many steps the smoothed loss was not finite, or four times the best; 0: not yet."""
    best = math.inf
    for count, smooth in enumerate(smoothed(losses), 1):
        if not math.isfinite(smooth) or smooth > DIVERGED * best:
            return count
        best = min(best, smooth)
    return 0


def curve_of(losses: list[float], starts: list[float], steps: int) -> tuple[list[float], list[float]]:
    """Rates and smoothed losses up to where the loss explodes.

    What is smoothed is each batch's loss less what the untrained network loses on that same batch under the same
    dropout: how hard a batch is hides what a rate does to it, and this takes it out.
    """
    end = exploded(losses)
    kept = end - 1 if end else len(losses)
    gains = [loss - start for loss, start in zip(losses, starts, strict=True)]
    level = sum(starts[: end or None]) / max(len(starts[: end or None]), 1)
    lrs = [lr_at(step, steps) for step in range(kept)]
    return lrs, [level + gain for gain in smoothed(gains[:kept])]


def smoothed(values: list[float]) -> list[float]:
    """The debiased exponential mean after each of the values."""
    mean, means = 0.0, list[float]()
    for count, value in enumerate(values, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        means.append(mean / (1 - SMOOTHING**count))
    return means


def suggest(lrs: np.ndarray, losses: np.ndarray, stage: str = "") -> dict[str, float]:
    """The rate that each way suggests, for a smoothed curve: rates (n,), losses (n,).

    Raises:
        ConfigError: fewer than four points are left once the first 10 and the last 5 are dropped.
    """
    lrs, losses = lrs[DROP_FIRST:-DROP_LAST], losses[DROP_FIRST:-DROP_LAST]
    if len(lrs) < 4:
        raise ConfigError(
            f"the LR search of the {stage} stage saw the loss explode after {len(lrs) + DROP_FIRST + DROP_LAST} "
            f"steps, too few to suggest a rate; set {stage}.rate yourself, or raise lr_finder.steps"
        )
    return {
        "valley": float(lrs[_valley(losses)]),
        "steep": float(lrs[(np.diff(losses) / np.diff(np.log(lrs))).argmin()]),
        "minimum": float(lrs[losses.argmin()] / 10),
    }


def _valley(losses: np.ndarray) -> int:
    """Two thirds along the way from where the loss leaves its plateau to its lowest point.

    fastai takes the longest decreasing subsequence for that way. On a smooth curve it begins with falls of a
    ten-thousandth, decades of rate before anything is learnt, so that it ends in rates far too low; here the plateau is
    left when half of the whole fall is behind.
    """
    bottom = int(losses.argmin())
    edge = losses[: bottom + 1].max()
    start = int(np.flatnonzero(losses[: bottom + 1] >= edge - PLATEAU * (edge - losses[bottom]))[-1])
    return start + 2 * (bottom - start) // 3
