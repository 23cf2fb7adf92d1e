"""Evidence of a report with made-up predictions and a made-up training."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pandas as pd
import pytest

from pcam_model.evaluation.evidence import Evidence
from pcam_model.evaluation.predictions import SplitPredictions
from pcam_model.evaluation.report_schema import PackSummary, SplitSummary
from pcam_model.training.lr_curve import LrCurve


def predictions(count: int, seed: int, *, slides: int = 8, skill: float = 2.0, heat: float = 1.5) -> pd.DataFrame:
    """Labels, slides and logits that depend on the labels by `skill`; `heat` above 1 makes them overconfident."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, count)
    slide = random.integers(0, slides, count)
    offset = random.normal(0, 0.7, slides)[slide]
    odds = heat * (skill * (2 * label - 1) + offset + random.normal(0, 1.5, count))
    return pd.DataFrame({
        "id": [f"{seed}-{row}" for row in range(count)], "slide": [f"slide_{number:03d}" for number in slide],
        "label": label, "logit0": -odds / 2, "logit1": odds / 2,
    })  # fmt: skip


def history(stage: str, steps: int, epochs: int, first: float, last: float) -> list[dict[str, object]]:
    """The rows of metrics.jsonl of one stage."""
    random, lines = np.random.default_rng(5), []
    for step in range(1, steps + 1):
        loss = last + (first - last) * np.exp(-4 * step / steps)
        lr = 1e-2 * np.sin(np.pi * step / (steps + 1))
        lines.append({"kind": "step", "stage": stage, "epoch": (step - 1) * epochs // steps + 1, "step": step,
                      "loss": float(loss + random.normal(0, 0.05)), "lr": float(lr)})  # fmt: skip
        if step % (steps // epochs) == 0:
            lines.append({"kind": "epoch", "stage": stage, "epoch": step * epochs // steps, "step": step,
                          "train_loss": float(loss), "valid_loss": float(loss) + 0.03, "valid_accuracy": 0.9,
                          "valid_auc": 0.95, "seconds": 12.5, "images_per_second": 240.0})  # fmt: skip
    return lines


def lr_curve(suggestion: float, stage: Literal["frozen", "finetune"] = "finetune") -> LrCurve:
    """A range test whose loss falls, rests and explodes."""
    lrs = np.geomspace(1e-7, 1, 90)
    losses = 0.75 - 0.35 / (1 + np.exp(-1.2 * (np.log(lrs) - np.log(suggestion)))) + (lrs / (20 * suggestion)) ** 2
    return LrCurve(
        path="lr.json",
        stage=stage,
        lrs=lrs.tolist(),
        losses=losses.tolist(),
        suggestion=suggestion,
        method="valley",
        suggestions={"valley": suggestion},
    )


def split_predictions(**tables: pd.DataFrame) -> dict[str, SplitPredictions]:
    """Split to its table of predictions, without single views and rows of a pack."""
    return {split: SplitPredictions(table) for split, table in tables.items()}


def make(**fields: object) -> Evidence:
    """Complete evidence; the fields that a test gives replace the defaults."""
    defaults: dict[str, object] = {
        "run": "quiet-lymph-node",
        "config": {"model": {"arch": "resnet18", "image_size": 96}, "frozen": {"epochs": 2}, "finetune": {"epochs": 4}},
        "pack": PackSummary(
            digest="ab" * 32, count=2600, labelled=2600, mean=(0.7, 0.55, 0.7), std=(0.24, 0.28, 0.22),
            source="generated sample, seed 2",
        ),
        "split": SplitSummary(
            digest="cd" * 32,
            kind="slide",
            counts={"train": {"0": 900, "1": 900}, "valid": {"0": 198, "1": 202}, "test": {"0": 203, "1": 197}},
            meaning="No slide is in two splits: the figures tell of slides never seen.",
        ),
        "lr_curves": {"frozen": lr_curve(1e-2, "frozen"), "finetune": lr_curve(1e-4)},
        "history": history("frozen", 60, 2, 0.7, 0.45) + history("finetune", 120, 4, 0.45, 0.2),
        "predictions": split_predictions(valid=predictions(400, 1), test=predictions(400, 2)),
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "cost": {"seconds": 93.0, "device": "2 CPU cores"},
    }  # fmt: skip
    return Evidence(**{**defaults, **fields})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_evidence() -> Callable[..., Evidence]:
    """Make complete evidence; the fields that are given replace the defaults."""
    return make
