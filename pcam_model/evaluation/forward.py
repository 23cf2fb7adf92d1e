"""A network's output on a part of a pack, in float32, the same on every device up to rounding."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from pcam_model.data.patch_loader import PatchLoader
from pcam_model.evaluation.views import views
from pcam_model.training.network import PatchNetwork

BATCH = {"cpu": 64, "cuda": 256}  # a processor is slowed by activations that leave its caches
COLUMNS = ["id", "slide", "label", "pixels"]


@torch.inference_mode()
def forward(
    network: PatchNetwork, part: PatchLoader, tta: bool, tell: Callable[[int, int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (n, 2) of the part's patches as they are, and with `tta` their mean over the 8 symmetries; on the host.

    Args:
        network: left in evaluation mode.
        part: read in its own order.
        tta: without it both results are the same.
        tell: is told (done, total) patches.
    """
    network.eval()
    single, mean, done = torch.empty(len(part), 2), torch.empty(len(part), 2), 0
    for images, _ in part.in_order(BATCH.get(part.device.type, 64)):
        seen = [network(view).float() for view in (views(images) if tta else [images])]
        here = slice(done, done := done + len(images))
        single[here], mean[here] = seen[0].cpu(), (torch.stack(seen).mean(0) if tta else seen[0]).cpu()
        if tell:
            tell(done, len(part))
    return single, mean


def as_table(people: pd.DataFrame, rows: np.ndarray, logits: Tensor) -> pd.DataFrame:
    """Columns id, slide, label, pixels, logit0, logit1 for `rows` (n,) of the pack's table `people`."""
    chosen = people.iloc[rows][COLUMNS].reset_index(drop=True)
    return chosen.assign(logit0=logits[:, 0].numpy(), logit1=logits[:, 1].numpy())
