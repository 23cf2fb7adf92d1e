"""Predictions of a split as tables."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from pcam_model.data.patch_loader import PatchLoader
from pcam_model.evaluation.logits import OnProgress, predict_logits
from pcam_model.training.network import PatchNetwork

COLUMNS = ["id", "slide", "domain", "label", "pixels"]


@dataclass(frozen=True)
class SplitPredictions:
    """Predictions of one split.

    Attributes:
        table: id, slide, label, logit0, logit1 of each patch, and where known `pixels`, a digest, and `domain`.
        single_view: the same without test-time augmentation, where `table` is with it.
        rows: int64 (n,), the row of the pack of each row of the table; None where no pack is at hand.
    """

    table: pd.DataFrame
    single_view: pd.DataFrame | None = None
    rows: NDArray[np.int64] | None = None


def predict_split(
    network: PatchNetwork,
    loader: PatchLoader,
    table: pd.DataFrame,
    rows: NDArray[np.int64],
    tta: bool,
    on_progress: OnProgress | None = None,
) -> SplitPredictions:
    """Predictions of a split.

    Args:
        network: left in evaluation mode.
        loader: of the split.
        table: the pack's table.
        rows: the split's rows of the pack, (n,).
        tta: test-time augmentation; with it the predictions without it are returned as well.
        on_progress: called after each batch.
    """
    single, mean = predict_logits(network, loader, tta, on_progress)
    single_view = predictions_table(table, rows, single) if tta else None
    return SplitPredictions(predictions_table(table, rows, mean), single_view, rows)


def predictions_table(table: pd.DataFrame, rows: NDArray[np.int64], logits: Tensor) -> pd.DataFrame:
    """Columns id, slide, domain, label, pixels, logit0, logit1 for rows (n,) of the pack's table; logits (n, 2)."""
    selected = table.iloc[rows][COLUMNS].reset_index(drop=True)
    return selected.assign(logit0=logits[:, 0].numpy(), logit1=logits[:, 1].numpy())
