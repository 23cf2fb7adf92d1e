"""Losses wait on the device until they are asked for; then they are noted down, and training ends if they are none."""

import math
from typing import Any

import torch
from torch import Tensor

from pcam_model.core.errors import BadPlan
from pcam_model.training.schedule import Course
from pcam_model.training.metrics_log import Diary
from pcam_model.training.nan_guard import IN_A_ROW


class Losses:
    """The losses of the last steps."""

    def __init__(self, course: Course, diary: Diary):
        self.course, self.diary, self.name = course, diary, course.stage.name
        self.waiting: list[Tensor] = []
        self.bad = diary.skipped_last()

    def add(self, loss: Tensor) -> None:
        """One step's: a scalar, left on the device; not a number where the step was skipped."""
        self.waiting.append(loss)

    def read(self, done: int) -> bool:
        """Note down what waits after so many steps; whether anything did.

        Raises:
            BadPlan: too many steps in a row were skipped.
        """
        if not self.waiting:
            return False
        losses = torch.stack(self.waiting).tolist()
        self.waiting.clear()
        rows = [self._row(done - len(losses) + i, loss) for i, loss in enumerate(losses)]
        self.diary.add(rows)
        self._stop_where_broken(rows)
        return True

    def of_epoch(self, epoch: int) -> list[float]:
        """What is noted down of an epoch, counted from 1."""
        return [row["loss"] for row in self.diary.rows() if row["kind"] == "step" and row["epoch"] == epoch]

    def _row(self, step: int, loss: float) -> dict[str, Any]:
        _, epoch, _ = self.course.place(step)
        row = {"stage": self.name, "epoch": epoch + 1, "step": step + 1, "rate": self.course.rate(step)}
        if math.isfinite(loss):
            return {"kind": "step", **row, "loss": loss}
        return {"kind": "skipped", **row, "patches": self.course.patches(step)}

    def _stop_where_broken(self, rows: list[dict[str, Any]]) -> None:
        """Say which steps were skipped; a few in a row are no accident."""
        for row in rows:
            self.bad = self.bad + 1 if row["kind"] == "skipped" else 0
            if self.bad == IN_A_ROW:
                raise BadPlan(self._broken(row))
            if self.bad:
                print(f"{self.name}: step {row['step']} is skipped, its loss or gradient is not finite")

    def _broken(self, row: dict[str, Any]) -> str:
        some, count = ", ".join(map(str, row["patches"][:5])), len(row["patches"])
        return (
            f"{self.name} training broke down at step {row['step']} of {self.course.steps}: {IN_A_ROW} steps in a row "
            f"had a loss or gradient that is not finite, at rate {row['rate']:.2g}, this one with {count} patches "
            f"({some}, ...; {self.diary.path} names all); the checkpoint before them is kept; "
            f"set {self.name}.rate lower than {self.course.highest:.2g} and choose another run name"
        )
