"""Learning rate range test (Smith 2015, fastai's numbers): train with a growing rate until the loss explodes."""

import json
import math
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pcam_model.core.errors import ConfigError, Interrupted
from pcam_model.core.files import write_atomic
from pcam_model.core.log import log
from pcam_model.core.rng import StepKey
from pcam_model.core.schema import Config, Record
from pcam_model.core.smoothing import debiased_ema
from pcam_model.core.stage_names import StageName
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.checkpoint import LATEST, load_state, read_checkpoint_metadata, save_state
from pcam_model.training.checkpoint_identity import check_identity
from pcam_model.training.device import ComputeConfig, tune_malloc
from pcam_model.training.interrupt import RESUME_HINT, StopRequest, graceful_stop
from pcam_model.training.network import PatchNetwork
from pcam_model.training.stage import Stage
from pcam_model.training.step import compute_loss, train_step
from pcam_model.training.train_state import ENGINE_VERSION, create_train_state

LOWEST, HIGHEST = 1e-7, 10.0
MOMENTUM = 0.9  # AdamW's default: the test has no cycle
SMOOTHING, DIVERGED = 0.98, 4.0
DROP_FIRST, DROP_LAST = 10, 5
PLATEAU = 0.5
FLUSH_STEPS = 5  # losses are read from the device every so many steps
STAGE_OFFSET = 10  # added to a stage's number in RNG keys, which differ from those of its training

SuggestionMethod = Literal["valley", "steep", "minimum"]


class LrFinderConfig(Config):
    """The learning rate range test, for stages whose `lr` is `find`."""

    steps: int = Field(100, ge=20, le=2000)
    """Steps from 1e-7 to 10, exponentially spaced."""
    method: SuggestionMethod = "valley"
    """valley: two thirds from the plateau to the lowest loss; steep: the steepest fall; minimum: lowest loss / 10."""


class LrCurve(Record):
    """Loss over learning rate, and the suggested learning rate."""

    path: str
    stage: StageName
    lrs: list[float]
    losses: list[float]
    """Smoothed (debiased exponential moving average, 0.98)."""
    suggestion: float
    method: SuggestionMethod
    suggestions: dict[str, float]
    """The suggestion of each method."""


@dataclass(frozen=True)
class LrFinderSetup:
    """Inputs of a range test besides network and data.

    Attributes:
        stage: whose batch size, augmentation and layer groups are used.
        config: number of steps and method.
        seed: of all random numbers.
        folder: of checkpoints and `lr.json`.
        compute: precision, and when to write checkpoints.
        inputs: digests that a checkpoint must agree with to be resumed.
    """

    stage: Stage
    config: LrFinderConfig
    seed: int
    folder: Path
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    inputs: dict[str, Any] = field(default_factory=dict)


def find_lr(
    network: PatchNetwork,
    train: PatchLoader,
    setup: LrFinderSetup,
    on_progress: Callable[[int, int], None] | None = None,
) -> LrCurve:
    """Train with a growing rate until the loss explodes; network and torch's random state are restored.

    Resumes from the folder's checkpoint where it has the same inputs, with the result of an uninterrupted test.

    Raises:
        ConfigError: the loss was not finite from the start, so nothing can be suggested.
        CheckpointMismatchError: the checkpoint is of another test.
        Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
    """
    tune_malloc()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        with graceful_stop() as stop:
            lr_finder = LrFinder(network, train, setup)
            lr_finder.resume()
            lrs, losses = lr_finder.run(stop, on_progress or (lambda *_: None))
    finally:
        network.load_state_dict(before)
        network.set_microbatches(1)
    stage, method, path = setup.stage.name, setup.config.method, setup.folder / "lr.json"
    suggestions = suggest(np.array(lrs), np.array(losses), stage)
    curve = LrCurve(
        path=str(path),
        stage=stage,
        lrs=lrs,
        losses=losses,
        suggestion=suggestions[method],
        method=method,
        suggestions=suggestions,
    )
    write_atomic(path, json.dumps(curve.model_dump(exclude={"path"}), indent=1).encode())
    (setup.folder / LATEST).unlink(missing_ok=True)
    return curve


class LrFinder:
    """The steps of a range test and their losses."""

    def __init__(self, network: PatchNetwork, train: PatchLoader, setup: LrFinderSetup):
        self.train, self.compute, self.path = train, setup.compute, setup.folder / LATEST
        self.steps, self.batch_size, self.seed = setup.config.steps, setup.stage.batch_size, setup.seed
        self.stage_number = setup.stage.number + STAGE_OFFSET
        self.view_config = setup.stage.view_config(0, 1, train.image_size)
        self.untrained = deepcopy(network).train()
        self.state = create_train_state(network.train(), setup.stage.lr_multipliers, train.device, self.compute)
        self.losses, self.starts = list[float](), list[float]()
        self.pending: list[tuple[Tensor, Tensor]] = []
        self.saved_at = time.monotonic()
        self.identity = {
            **setup.inputs,
            "lr_multipliers": setup.stage.lr_multipliers,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "seed": self.seed,
            "stage": setup.stage.name,
            "patches": len(train),
            "view_config": asdict(self.view_config),
            "engine": ENGINE_VERSION,
        }

    def resume(self) -> None:
        """Load the folder's checkpoint where there is one. Raises CheckpointMismatchError."""
        if self.path.is_file():
            metadata = read_checkpoint_metadata(self.path)
            check_identity(self.path, metadata["identity"], self.identity)
            load_state(self.path, self.state)
            self.untrained.set_microbatches(self.state.network.microbatches)
            self.losses, self.starts = metadata["losses"], metadata["starts"]
            log.info("LR search: resumed at step %d of %d", self.state.step, self.steps)

    def run(self, stop: StopRequest, on_progress: Callable[[int, int], None]) -> tuple[list[float], list[float]]:
        """Rates and smoothed losses until the loss explodes."""
        while self.state.step < self.steps and not exploded(self.losses):
            self._step()
            while self.state.step % FLUSH_STEPS and self.state.step < self.steps and not self._is_due(stop):
                self._step()
            self._flush()
            on_progress(self.state.step, self.steps)
            if self._is_due(stop):
                self._checkpoint()
            if stop.signal:
                message = f"LR search stopped by {stop.signal.name} after step {self.state.step} of {self.steps}"
                log.info("%s; %s", message, RESUME_HINT)
                raise Interrupted(f"{message}; {RESUME_HINT}")
        return curve_of(self.losses, self.starts, self.steps)

    def _step(self) -> None:
        """Take a step at its rate; its loss, and the untrained network's on the same batch, stay on the device."""
        step = self.state.step
        epoch, k = divmod(step, len(self.train) // self.batch_size)
        order, key = self.train.epoch_order(self.seed, self.stage_number, epoch), self._step_key(epoch, k)
        rows = order[k * self.batch_size : (k + 1) * self.batch_size]
        images, labels = self.train.augmented_batch(rows, *key, view_config=self.view_config)
        with torch.no_grad():
            start = compute_loss(self.untrained, images, labels, key, precision=self.state.precision)
        loss = train_step(self.state, images, labels, lr_at(step, self.steps), MOMENTUM, key)
        self.pending.append((loss, start))

    def _step_key(self, epoch: int, k: int) -> StepKey:
        return StepKey(self.seed, self.stage_number, epoch, k)

    def _flush(self) -> None:
        """Read the losses of the last steps from the device."""
        for loss, start in torch.stack([torch.stack(pair) for pair in self.pending]).tolist():
            self.losses.append(loss)
            self.starts.append(start)
        self.pending.clear()

    def _is_due(self, stop: StopRequest) -> bool:
        """Whether it is time for a checkpoint."""
        every = self.compute.checkpoint_steps
        late = time.monotonic() - self.saved_at > self.compute.checkpoint_seconds
        return bool(stop.signal) or late or bool(every and self.state.step % every == 0)

    def _checkpoint(self) -> None:
        metadata = {"identity": self.identity, "losses": self.losses, "starts": self.starts}
        save_state(self.path, self.state, metadata)
        self.saved_at = time.monotonic()


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
    """The debiased exponential moving average after each of the values."""
    return [float(value) for value in debiased_ema(values, SMOOTHING)]


def suggest(lrs: np.ndarray, losses: np.ndarray, stage: str = "") -> dict[str, float]:
    """The rate that each way suggests, for a smoothed curve: rates (n,), losses (n,).

    Raises:
        ConfigError: fewer than four points are left once the first 10 and the last 5 are dropped.
    """
    lrs, losses = lrs[DROP_FIRST:-DROP_LAST], losses[DROP_FIRST:-DROP_LAST]
    if len(lrs) < 4:
        raise ConfigError(
            f"the LR search of the {stage} stage saw the loss explode after {len(lrs) + DROP_FIRST + DROP_LAST} "
            f"steps, too few to suggest a rate; set {stage}.lr yourself, or raise lr_finder.steps"
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
