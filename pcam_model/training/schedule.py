"""One-cycle schedule (Smith 2018, with fastai's numbers), and what makes each batch: functions of the step alone."""

import math

import torch
from torch import Tensor

from pcam_model.core.rng import BatchSlice, StepKey
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.batch import BatchSpec
from pcam_model.training.stage import Stage

WARMUP_FRACTION = 0.25
DIV_FACTOR, FINAL_DIV_FACTOR = 25.0, 1e5
MAX_MOMENTUM, MIN_MOMENTUM = 0.95, 0.85


def one_cycle_lr(step: int, steps: int, max_lr: float) -> float:
    """The learning rate of `step` (0 .. steps - 1): from max_lr / 25 up to max_lr, then down to max_lr / 1e5."""
    return _one_cycle(step, steps, max_lr / DIV_FACTOR, max_lr, max_lr / FINAL_DIV_FACTOR)


def one_cycle_momentum(step: int, steps: int) -> float:
    """AdamW's first beta at `step` (0 .. steps - 1): 0.95 down to 0.85, and back."""
    return _one_cycle(step, steps, MAX_MOMENTUM, MIN_MOMENTUM, MAX_MOMENTUM)


def _one_cycle(step: int, steps: int, start: float, middle: float, end: float) -> float:
    fraction = step / max(steps - 1, 1)
    if fraction < WARMUP_FRACTION:
        return _cosine(start, middle, fraction / WARMUP_FRACTION)
    return _cosine(middle, end, (fraction - WARMUP_FRACTION) / (1 - WARMUP_FRACTION))


def _cosine(start: float, end: float, fraction: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2


class Schedule:
    """Learning rate, momentum, RNG key and batch of every step of a stage; steps count from 0."""

    def __init__(self, stage: Stage, train: PatchLoader, max_lr: float, seed: int):
        """`max_lr`: of the last layer group. Raises ConfigError where the batch is larger than the training split."""
        self.stage, self.train, self.max_lr, self.seed = stage, train, max_lr, seed
        self.steps_per_epoch = stage.steps_per_epoch(len(train))
        self.steps = self.steps_per_epoch * stage.config.epochs
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def is_epoch_end(self, done: int) -> bool:
        """Whether an epoch ends after `done` steps."""
        return done % self.steps_per_epoch == 0

    def step_key(self, step: int) -> StepKey:
        """The RNG key of a step."""
        return StepKey(self.seed, self.stage.number, *divmod(step, self.steps_per_epoch))

    def lr(self, step: int) -> float:
        """Learning rate of the last layer group."""
        return one_cycle_lr(step, self.steps, self.max_lr)

    def momentum(self, step: int) -> float:
        """AdamW's first beta."""
        return one_cycle_momentum(step, self.steps)

    def rows(self, step: int) -> Tensor:
        """int64 (B,): positions in the training split that make the batch."""
        epoch, k = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:
            self._epoch, self._order = epoch, self.train.epoch_order(self.seed, self.stage.number, epoch)
        return self._order[k * self.stage.batch_size :][: self.stage.batch_size]

    def patch_ids(self, step: int) -> list[str] | list[int]:
        """Ids of the batch's patches; their positions where they have none."""
        rows: list[int] = self.rows(step).tolist()
        return [self.train.ids[row] for row in rows] if len(self.train.ids) else rows

    def batch_spec(self, step: int, batch_slice: BatchSlice) -> BatchSpec:
        """Patches, RNG key and augmentation of these rows of a step's batch."""
        view_config = self.stage.view_config(step, self.steps, self.train.image_size)
        return BatchSpec(self.rows(step), self.step_key(step), view_config, batch_slice)
