"""The network's logits on a split of a pack, in float32; the same on every device up to rounding."""

from collections.abc import Callable

import torch
from torch import Tensor

from pcam_model.data.patch_loader import PatchLoader
from pcam_model.evaluation.views import views
from pcam_model.training.network import PatchNetwork
from pcam_model.training.validation import BATCH_SIZE

OnProgress = Callable[[int, int], None]
"""Called with (done, total) patches."""


@torch.inference_mode()
def predict_logits(
    network: PatchNetwork, loader: PatchLoader, tta: bool, on_progress: OnProgress | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (n, 2) of the split's patches as they are, and with `tta` their mean over the 8 symmetries; on the host.

    Args:
        network: left in evaluation mode.
        loader: of the split, read in its own order.
        tta: test-time augmentation; without it both results are the same.
        on_progress: called after each batch.
    """
    network.eval()
    single, mean = torch.empty(2, len(loader), 2, device=loader.device)
    done = 0
    for images, _ in loader.iterate(BATCH_SIZE.get(loader.device.type, 64)):
        logits = [network(view).float() for view in (views(images) if tta else [images])]
        batch = slice(done, done := done + len(images))
        single[batch], mean[batch] = logits[0], torch.stack(logits).mean(0) if tta else logits[0]
        if on_progress:
            on_progress(done, len(loader))
    return single.cpu(), mean.cpu()
