"""Evidence of a small training that never was."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from pcam_model.evaluation.report import Evidence


def predictions(count: int, seed: int, *, slides: int = 8, skill: float = 2.0, heat: float = 1.5) -> pd.DataFrame:
    """Labels by slide and logits that know something of them; `heat` above 1 makes them too sure of themselves."""
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
    """The lines of metrics.jsonl of one stage."""
    random, lines = np.random.default_rng(5), []
    for step in range(1, steps + 1):
        loss = last + (first - last) * np.exp(-4 * step / steps)
        rate = 1e-2 * np.sin(np.pi * step / (steps + 1))
        lines.append({"kind": "step", "stage": stage, "epoch": (step - 1) * epochs // steps + 1, "step": step,
                      "loss": float(loss + random.normal(0, 0.05)), "rate": float(rate)})  # fmt: skip
        if step % (steps // epochs) == 0:
            lines.append({"kind": "epoch", "stage": stage, "epoch": step * epochs // steps, "step": step,
                          "train_loss": float(loss), "valid_loss": float(loss) + 0.03, "valid_accuracy": 0.9,
                          "valid_auc": 0.95, "seconds": 12.5, "images_per_second": 240.0})  # fmt: skip
    return lines


def lr_curve(rate: float) -> dict[str, object]:
    """A search that falls, rests and bursts."""
    rates = np.geomspace(1e-7, 1, 90)
    losses = 0.75 - 0.35 / (1 + np.exp(-1.2 * (np.log(rates) - np.log(rate)))) + (rates / (20 * rate)) ** 2
    return {"rates": rates.tolist(), "losses": losses.tolist(), "suggestion": rate, "how": "valley", "rate": rate}


@pytest.fixture
def make_evidence() -> Callable[..., Evidence]:
    """Whole evidence; what a test gives by name replaces a part of it."""
    return _maker()


@pytest.fixture(scope="module")
def module_evidence() -> Callable[..., Evidence]:
    """The same, for what a whole module shares."""
    return _maker()


def _maker() -> Callable[..., Evidence]:
    def make(**parts: object) -> Evidence:
        whole: dict[str, object] = {
            "run": "quiet-lymph-node",
            "config": {"model": {"arch": "resnet18", "image_size": 96}, "frozen": {"epochs": 2}, "finetune": {"epochs": 4}},
            "pack": {"folder": "packs/ab", "digest": "ab" * 32, "count": 2600, "labelled": 2600,
                     "mean": (0.7, 0.55, 0.7), "std": (0.24, 0.28, 0.22), "source": "generated sample, seed 2"},
            "split": {"path": "s.parquet", "digest": "cd" * 32, "kind": "slide",
                      "counts": {"train": {"0": 900, "1": 900}, "valid": {"0": 198, "1": 202},
                                 "test": {"0": 203, "1": 197}},
                      "meaning": "No slide stands on two sides: the figures tell of slides never seen."},
            "lr_curves": {"frozen": lr_curve(1e-2), "finetune": lr_curve(1e-4)},
            "history": history("frozen", 60, 2, 0.7, 0.45) + history("finetune", 120, 4, 0.45, 0.2),
            "predictions": {"valid": predictions(400, 1), "test": predictions(400, 2)},
            "versions": {"python": "3.11.7", "torch": "2.15.0"},
            "cost": {"seconds": 93.0, "device": "2 CPU cores"},
        }  # fmt: skip
        return Evidence(**{**whole, **parts})  # type: ignore[arg-type]

    return make
