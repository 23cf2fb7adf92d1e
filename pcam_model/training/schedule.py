"""The course of a stage: which patches each step sees, how, and at which rate. A function of the step alone."""

import torch
from torch import Tensor

from pcam_model.data.augment import Sight
from pcam_model.data.patch_loader import Batches
from pcam_model.core.rng import Share
from pcam_model.training import one_cycle
from pcam_model.training.stage import Stage


class Course:
    """All steps of one cycle, counted from 0."""

    def __init__(self, stage: Stage, train: Batches, highest: float, seed: int):
        """`highest`: the cycle's highest rate. Raises BadPlan where the batch is larger than the part."""
        self.stage, self.train, self.highest, self.seed = stage, train, highest, seed
        self.per_epoch = stage.steps_an_epoch(len(train))
        self.steps = self.per_epoch * stage.plan.epochs
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def ends_epoch(self, done: int) -> bool:
        """Whether an epoch is over after so many steps."""
        return done % self.per_epoch == 0

    def place(self, step: int) -> tuple[int, int, int]:
        """Stage, epoch and step in it: what randomness is drawn from."""
        return (self.stage.number, *divmod(step, self.per_epoch))

    def rate(self, step: int) -> float:
        """Of the highest layer group."""
        return one_cycle.rate(step, self.steps, self.highest)

    def momentum(self, step: int) -> float:
        """AdamW's first beta."""
        return one_cycle.momentum(step, self.steps)

    def rows(self, step: int) -> Tensor:
        """int64 (B,): the positions in the part that make the batch."""
        epoch, k = divmod(step, self.per_epoch)
        if self._epoch != epoch:
            self._epoch, self._order = epoch, self.train.order(self.seed, self.stage.number, epoch)
        return self._order[k * self.stage.batch :][: self.stage.batch]

    def patches(self, step: int) -> list[str] | list[int]:
        """The batch by the patches' ids; by positions where they have none."""
        rows: list[int] = self.rows(step).tolist()
        return [self.train.ids[row] for row in rows] if len(self.train.ids) else rows

    def batch(self, step: int, share: Share) -> tuple[Tensor, Tensor]:
        """A share of the batch as the step sees it: normalised images float (B, 3, S, S), labels int64 (B,)."""
        sight: Sight = self.stage.sight(step, self.steps, self.train.size)
        return self.train.augmented(self.rows(step), self.seed, *self.place(step), sight=sight, share=share)

    def expect(self, step: int, share: Share) -> None:
        """Have the batch brought to the device beforehand; an epoch's first is not known before the epoch."""
        if not self.ends_epoch(step):
            self.train.expect(share.of(self.rows(step)))
