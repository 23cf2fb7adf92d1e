"""A model on a labelled source: the figures that it reaches there."""

from pathlib import Path
from typing import Any

import numpy as np

from pcam_model.data.batches import batches, on_device
from pcam_model.data.pack import Pack, patches, table
from pcam_model.errors import BadSource
from pcam_model.evaluation import metrics
from pcam_model.training.device import best_device
from pcam_model.training.model import load_model
from pcam_model.training.step import predict


def score_elsewhere(folder: Path, pack: Pack, threshold: float = 0.5) -> dict[str, Any]:
    """Figures of the model in `folder` on all labelled patches of the pack.

    Raises:
        BadSource: no labelled patch.
        BadModel: the folder holds no whole model.
    """
    network, model = load_model(folder)
    people = table(pack)
    rows = np.flatnonzero(people["label"].notna())
    if not len(rows):
        raise BadSource(f"{pack.source} has no labelled patch, so there is nothing to compare with; use pcam predict")
    labels = people["label"].iloc[rows].to_numpy(np.int64)
    device = best_device()
    part = batches(on_device(patches(pack), device), rows, labels, model.size, device)
    logits = predict(network, part).numpy()
    checked = metrics.checked_labels(labels, pack.source)
    cells = metrics.confusion(checked, metrics.tumour_probability(logits), threshold)
    figures = {name: float(value) for name, value in metrics.figures(checked, logits, threshold).items()}
    same = model.pack == pack.digest
    return {
        "model": model.run,
        "source": pack.source,
        "patches": len(rows),
        "threshold": threshold,
        "figures": figures,
        "confusion": {name: int(value) for name, value in cells._asdict().items()},
        "warning": "these are the patches that the model was trained on: the figures are optimistic" if same else "",
    }
