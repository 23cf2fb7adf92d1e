"""The course of a stage: which patches each step sees, how, and at which rate. A function of the step alone."""

import torch
from torch import Tensor

from pcam_model.core.rng import BatchSlice
from pcam_model.data.augment import ViewConfig
from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training import one_cycle
from pcam_model.training.stage import Stage


class Schedule:
    """All steps of one cycle, counted from 0."""

    def __init__(self, stage: Stage, train: PatchLoader, max_lr: float, seed: int):
        """`highest`: the cycle's highest rate. Raises ConfigError where the batch is larger than the part."""
        self.stage, self.train, self.max_lr, self.seed = stage, train, max_lr, seed
        self.steps_per_epoch = stage.steps_per_epoch(len(train))
        self.steps = self.steps_per_epoch * stage.config.epochs
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def ends_epoch(self, done: int) -> bool:
        """Whether an epoch is over after so many steps."""
        return done % self.steps_per_epoch == 0

    def place(self, step: int) -> tuple[int, int, int]:
        """Stage, epoch and step in it: what randomness is drawn from."""
        return (self.stage.number, *divmod(step, self.steps_per_epoch))

    def lr(self, step: int) -> float:
        """Of the highest layer group."""
        return one_cycle.lr(step, self.steps, self.max_lr)

    def momentum(self, step: int) -> float:
        """AdamW's first beta."""
        return one_cycle.momentum(step, self.steps)

    def rows(self, step: int) -> Tensor:
        """int64 (B,): the positions in the part that make the batch."""
        epoch, k = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:
            self._epoch, self._order = epoch, self.train.order(self.seed, self.stage.number, epoch)
        return self._order[k * self.stage.batch_size :][: self.stage.batch_size]

    def patches(self, step: int) -> list[str] | list[int]:
        """The batch by the patches' ids; by positions where they have none."""
        rows: list[int] = self.rows(step).tolist()
        return [self.train.ids[row] for row in rows] if len(self.train.ids) else rows

    def batch_size(self, step: int, share: BatchSlice) -> tuple[Tensor, Tensor]:
        """A share of the batch as the step sees it: normalised images float (B, 3, S, S), labels int64 (B,)."""
        view_config: ViewConfig = self.stage.view_config(step, self.steps, self.train.size)
        return self.train.augmented(self.rows(step), self.seed, *self.place(step), view_config=view_config, share=share)

    def expect(self, step: int, share: BatchSlice) -> None:
        """Have the batch brought to the device beforehand; an epoch's first is not known before the epoch."""
        if not self.ends_epoch(step):
            self.train.expect(share.of(self.rows(step)))
