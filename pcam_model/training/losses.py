"""Losses wait on the device until they are asked for; then they are noted down, and training ends if they are none."""

import math
from typing import Any

import torch
from torch import Tensor

from pcam_model.core.errors import ConfigError
from pcam_model.training.metrics_log import MetricsLog
from pcam_model.training.nan_guard import MAX_SKIPPED_STEPS
from pcam_model.training.schedule import Schedule


class LossBuffer:
    """The losses of the last steps."""

    def __init__(self, schedule: Schedule, metrics_log: MetricsLog):
        self.schedule, self.metrics_log, self.name = schedule, metrics_log, schedule.stage.name
        self.waiting: list[Tensor] = []
        self.bad = metrics_log.skipped_last()

    def add(self, loss: Tensor) -> None:
        """One step's: a scalar, left on the device; not a number where the step was skipped."""
        self.waiting.append(loss)

    def read(self, done: int) -> bool:
        """Note down what waits after so many steps; whether anything did.

        Raises:
            ConfigError: too many steps in a row were skipped.
        """
        if not self.waiting:
            return False
        losses = torch.stack(self.waiting).tolist()
        self.waiting.clear()
        rows = [self._row(done - len(losses) + i, loss) for i, loss in enumerate(losses)]
        self.metrics_log.add(rows)
        self._stop_where_broken(rows)
        return True

    def of_epoch(self, epoch: int) -> list[float]:
        """What is noted down of an epoch, counted from 1."""
        return [row["loss"] for row in self.metrics_log.rows() if row["kind"] == "step" and row["epoch"] == epoch]

    def _row(self, step: int, loss: float) -> dict[str, Any]:
        _, epoch, _ = self.schedule.place(step)
        row = {"stage": self.name, "epoch": epoch + 1, "step": step + 1, "lr": self.schedule.lr(step)}
        if math.isfinite(loss):
            return {"kind": "step", **row, "loss": loss}
        return {"kind": "skipped", **row, "patches": self.schedule.patches(step)}

    def _stop_where_broken(self, rows: list[dict[str, Any]]) -> None:
        """Say which steps were skipped; a few in a row are no accident."""
        for row in rows:
            self.bad = self.bad + 1 if row["kind"] == "skipped" else 0
            if self.bad == MAX_SKIPPED_STEPS:
                raise ConfigError(self._broken(row))
            if self.bad:
                print(f"{self.name}: step {row['step']} is skipped, its loss or gradient is not finite")

    def _broken(self, row: dict[str, Any]) -> str:
        some, count = ", ".join(map(str, row["patches"][:5])), len(row["patches"])
        return (
            f"{self.name} training broke down at step {row['step']} of {self.schedule.steps}: {MAX_SKIPPED_STEPS} steps in a row "
            f"had a loss or gradient that is not finite, at lr {row['lr']:.2g}, this one with {count} patches "
            f"({some}, ...; {self.metrics_log.path} names all); the checkpoint before them is kept; "
            f"set {self.name}.lr lower than {self.schedule.max_lr:.2g} and choose another run name"
        )
