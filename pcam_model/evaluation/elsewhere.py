"""A model on a labelled source: the figures that it reaches there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pcam_model.data.batches import batches, on_device
from pcam_model.data.pack import Pack, patches, table
from pcam_model.errors import BadSource
from pcam_model.evaluation import metrics
from pcam_model.evaluation.forward import forward
from pcam_model.training.device import best_device
from pcam_model.training.model import load_model


def score_elsewhere(folder: Path, pack: Pack, tell: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Figures of the model in `folder` on all labelled patches of the pack, at the model's own operating point.

    Nothing is chosen here: temperature, threshold and views are the model's.

    Raises:
        BadSource: no labelled patch.
        BadSplit: one class only.
        BadModel: the folder holds no whole model.
    """
    network, model = load_model(folder)
    people = table(pack)
    rows = np.flatnonzero(people["label"].notna())
    if not len(rows):
        raise BadSource(f"{pack.source} has no labelled patch, so there is nothing to compare with; use pcam predict")
    labels = metrics.checked_labels(people["label"].iloc[rows].to_numpy(np.int64), pack.source)
    device = best_device()
    part = batches(on_device(patches(pack), device), rows, labels, model.size, device)
    _, logits = forward(network, part, model.tta, tell)
    calibrated = logits.double().numpy() / model.temperature
    cells = metrics.confusion(labels, metrics.tumour_probability(calibrated), model.threshold)
    figures = {name: float(value) for name, value in metrics.figures(labels, calibrated, model.threshold).items()}
    same = model.pack == pack.digest
    return {
        "model": model.run,
        "source": pack.source,
        "patches": len(rows),
        "threshold": model.threshold,
        "temperature": model.temperature,
        "tta": model.tta,
        "figures": figures,
        "confusion": {name: int(value) for name, value in cells._asdict().items()},
        "warning": "the model was trained on a part of these patches: the figures are optimistic" if same else "",
    }
