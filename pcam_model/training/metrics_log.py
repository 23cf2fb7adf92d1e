"""What training notes down: one JSON line a step and an epoch, in `metrics.jsonl`."""

import json
import os
from pathlib import Path
from typing import Any

from pcam_model.core.files import write_atomic

NAME = "metrics.jsonl"


class MetricsLog:
    """Lines of one stage; a run that goes on from a checkpoint first forgets what came after it.

    Where several processes train together one of them writes, and the others keep the same lines in memory.
    """

    def __init__(self, folder: Path, step: int, writes: bool = True):
        self.path = folder / NAME
        self.kept: list[dict[str, Any]] | None = None
        kept = [row for row in read_metrics(self.path) if row["step"] <= step] if step else []
        if writes:
            write_atomic(self.path, _lines(kept))
        else:
            self.kept = kept

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append rows and see them to the disk."""
        if self.kept is not None:
            self.kept += rows
            return
        with self.path.open("ab") as file:
            file.write(_lines(rows))
            file.flush()
            os.fsync(file.fileno())

    def rows(self) -> list[dict[str, Any]]:
        """All that is noted down so far."""
        return read_metrics(self.path) if self.kept is None else self.kept

    def skipped_last(self) -> int:
        """How many steps were skipped one after the other just before now."""
        kinds = [row["kind"] for row in self.rows() if row["kind"] != "epoch"]
        return next((i for i, kind in enumerate(reversed(kinds)) if kind != "skipped"), len(kinds))

    def epochs(self) -> list[dict[str, Any]]:
        """The rows of finished epochs."""
        return [row for row in self.rows() if row["kind"] == "epoch"]

    def best(self) -> dict[str, Any]:
        """The finished epoch with the highest validation AUC, the first of equals; empty before there is one."""
        return max(self.epochs(), key=lambda row: row["valid_auc"], default={})


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a diary; none where there is no file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def cost(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds that each stage trained, and its images a second."""
    spent: dict[str, float] = {}
    for stage in ("frozen", "finetune"):
        epochs = [row for row in rows if row["kind"] == "epoch" and row["stage"] == stage]
        if epochs:
            seconds = sum(row["seconds"] for row in epochs)
            images = sum(row["seconds"] * row["images_per_second"] for row in epochs)
            spent |= {f"{stage}, seconds": seconds, f"{stage}, images per second": images / seconds}
    return spent


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()
