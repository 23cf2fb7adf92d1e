"""What the validation part says after an epoch."""

from collections.abc import Callable

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.device import Precision, mixed
from pcam_model.training.network import PatchNetwork
from pcam_model.training.step import TrainState


def predict_distributed(state: TrainState, part: PatchLoader, tell: Callable[[], object]) -> Tensor:
    """Logits float32 (n, 2) of a whole part, each process computing its share; `tell` as in `predict`, where one does.

    Several processes cannot leave in the middle: they stop together, after a step.
    """
    if state.dist.world == 1:
        return predict(state.network, part, precision=state.precision, tell=tell)
    mine, logits = state.dist.share(len(part)), torch.zeros(len(part), 2)
    share = part.slice(mine.start, mine.stop)
    logits[mine.start : mine.stop] = predict(state.network, share, precision=state.precision)
    return state.dist.total(logits.to(part.device)).cpu()


@torch.inference_mode()
def predict(
    network: PatchNetwork,
    part: PatchLoader,
    batch_size: int = 64,
    precision: Precision = "auto",
    tell: Callable[[], object] | None = None,
) -> Tensor:
    """Logits float32 (n, 2) of a whole part, on the host, computed in the device's fast numbers.

    Args:
        network: left in evaluation mode.
        part: read in its own order, without augmentation.
        batch: patches at a time; does not change the result beyond rounding.
        precision: of the config.
        tell: called before each batch.
    """
    network.eval()
    logits = []
    with mixed(part.device, precision):
        for images, _ in part.in_order(batch_size):
            if tell:
                tell()
            logits.append(network(images).float())
    return torch.cat(logits).cpu()


def validation_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss, accuracy and AUC of logits (n, 2) for labels (n,), named as in `metrics.jsonl`."""
    chance = logits.double().softmax(1)[:, 1]
    return {
        "valid_loss": float(functional.cross_entropy(logits.double(), labels)),
        "valid_accuracy": float((logits.argmax(1) == labels).double().mean()),
        "valid_auc": float(roc_auc_score(labels.numpy(), chance.numpy())),
    }
