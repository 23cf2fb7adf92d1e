"""`metrics.jsonl`: one JSON line per step and per epoch."""

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pcam_model.core.errors import CheckpointError, DivergenceError
from pcam_model.core.files import write_atomic
from pcam_model.core.log import log
from pcam_model.core.metrics_rows import parse_metrics
from pcam_model.core.stage_names import STAGE_NAMES
from pcam_model.training.nan_guard import MAX_SKIPPED_STEPS
from pcam_model.training.schedule import Schedule

METRICS_FILE = "metrics.jsonl"
EPOCH_KEYS = {"stage", "train_loss", "valid_loss", "valid_accuracy", "valid_auc", "seconds", "images_per_second"}
"""What figures of a run are made of."""


class MetricsLog:
    """Rows of a stage's `metrics.jsonl`; of several processes one writes, the others keep the rows in memory."""

    def __init__(self, folder: Path, writes: bool = True):
        self.path = folder / METRICS_FILE
        self._memory: list[dict[str, Any]] | None = None if writes else []

    def truncate(self, step: int, validated: bool = True) -> None:
        """Start anew with the rows up to optimizer step `step`, the checkpoint's.

        Args:
            step: 0 removes all rows.
            validated: whether the row of an epoch that ends with `step` stays; without it, it is validated again.

        Raises:
            CheckpointError: rows that led to the checkpoint are missing or damaged.
        """
        rows = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        if sum(row["kind"] != "epoch" for row in rows) != step:
            raise CheckpointError(
                f"{self.path} lacks rows of the {step} steps that led to the checkpoint beside it; delete "
                f"{self.path.parent} and run again, which trains the stage again"
            )
        rows = [row for row in rows if validated or row["kind"] != "epoch" or row["step"] < step]
        if self._memory is None:
            write_atomic(self.path, _to_lines(rows))
        else:
            self._memory = rows

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Append rows and sync them to the disk."""
        if self._memory is not None:
            self._memory += rows
            return
        with self.path.open("ab") as file:
            file.write(_to_lines(rows))
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """All rows so far."""
        return read_metrics(self.path) if self._memory is None else self._memory

    def trailing_skips(self) -> int:
        """Number of skipped steps at the end, one after the other."""
        kinds = [row["kind"] for row in self.rows() if row["kind"] != "epoch"]
        return next((i for i, kind in enumerate(reversed(kinds)) if kind != "skipped"), len(kinds))

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of finished epochs."""
        return [row for row in self.rows() if row["kind"] == "epoch"]

    def best_epoch(self) -> dict[str, Any]:
        """The finished epoch with the highest validation AUC, the first of equals; empty before there is one."""
        return max(self.epochs(), key=lambda row: row["valid_auc"], default={})


class LossBuffer:
    """Losses of the last steps, left on the device until they are flushed to the metrics log."""

    def __init__(self, schedule: Schedule, metrics_log: MetricsLog):
        self.schedule, self.metrics_log, self.stage = schedule, metrics_log, schedule.stage.name
        self.consecutive_skips = 0
        self._losses: list[Tensor] = []

    def resume(self) -> None:
        """Count the skipped steps at the end of the metrics log."""
        self.consecutive_skips = self.metrics_log.trailing_skips()

    def add(self, loss: Tensor) -> None:
        """Add a step's loss, a scalar on the device; NaN where the step was skipped."""
        self._losses.append(loss)

    def flush(self, done: int) -> bool:
        """Move the losses, the last of which is of step `done`, to the metrics log; returns whether there were any.

        Raises:
            DivergenceError: too many steps in a row were skipped.
        """
        if not self._losses:
            return False
        losses = torch.stack(self._losses).tolist()
        self._losses.clear()
        rows = [self._row(done - len(losses) + i, loss) for i, loss in enumerate(losses)]
        self.metrics_log.append(rows)
        self._check_skips(rows)
        return True

    def epoch_losses(self, epoch: int) -> list[float]:
        """The losses of an epoch, from 1, without skipped steps."""
        return [row["loss"] for row in self.metrics_log.rows() if row["kind"] == "step" and row["epoch"] == epoch]

    def _row(self, step: int, loss: float) -> dict[str, Any]:
        epoch = self.schedule.step_key(step).epoch
        row = {"stage": self.stage, "epoch": epoch + 1, "step": step + 1, "lr": self.schedule.lr(step)}
        if math.isfinite(loss):
            return {"kind": "step", **row, "loss": loss}
        return {"kind": "skipped", **row, "patches": self.schedule.patch_ids(step)}

    def _check_skips(self, rows: list[dict[str, Any]]) -> None:
        """Log a warning for each skipped step. Raises DivergenceError after too many in a row."""
        for row in rows:
            self.consecutive_skips = self.consecutive_skips + 1 if row["kind"] == "skipped" else 0
            if self.consecutive_skips == MAX_SKIPPED_STEPS:
                raise DivergenceError(self._divergence_message(row))
            if self.consecutive_skips:
                log.warning("%s: step %d is skipped, its loss or gradient is not finite", self.stage, row["step"])

    def _divergence_message(self, row: dict[str, Any]) -> str:
        first_ids, count = ", ".join(map(str, row["patches"][:5])), len(row["patches"])
        return (
            f"{self.stage} training diverged at step {row['step']} of {self.schedule.steps}: {MAX_SKIPPED_STEPS} steps "
            f"in a row had a loss or gradient that is not finite, at lr {row['lr']:.2g}, this one with {count} patches "
            f"({first_ids}, ...; {self.metrics_log.path} lists all); the checkpoint before them is kept; "
            f"set {self.stage}.lr lower than {self.schedule.max_lr:.2g} and choose another run name"
        )


def epoch_row(
    schedule: Schedule, step: int, losses: list[float], metrics: dict[str, float], seconds: float
) -> dict[str, Any]:
    """The row of the epoch that ends after `step`; `seconds`: of training, without validation."""
    images = schedule.steps_per_epoch * schedule.stage.batch_size
    return {
        "kind": "epoch",
        "stage": schedule.stage.name,
        "epoch": step // schedule.steps_per_epoch,
        "step": step,
        "train_loss": sum(losses) / max(len(losses), 1),
        **metrics,
        "seconds": seconds,
        "images_per_second": images / max(seconds, 1e-9),
    }


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete rows of a `metrics.jsonl`; none where there is no file. Raises CheckpointError for a damaged row."""
    if not path.is_file():
        return []
    remedy = f"delete {path.parent} and run again, which trains the stage again"
    rows = parse_metrics(path.read_bytes(), path, remedy=remedy, error=CheckpointError)
    for row in rows:
        if row["kind"] == "epoch" and (missing := EPOCH_KEYS - row.keys()):
            raise CheckpointError(
                f"{path}: the row of epoch {row['epoch']} lacks {', '.join(sorted(missing))}; {remedy}"
            )
    return rows


def training_cost(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Training seconds of each stage, and its images per second."""
    cost: dict[str, float] = {}
    for stage in STAGE_NAMES:
        epochs = [row for row in rows if row["kind"] == "epoch" and row["stage"] == stage]
        if epochs:
            seconds = sum(row["seconds"] for row in epochs)
            images = sum(row["seconds"] * row["images_per_second"] for row in epochs)
            cost |= {f"{stage}, seconds": seconds, f"{stage}, images per second": images / seconds}
    return cost


def _to_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
