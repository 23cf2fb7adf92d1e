"""Logits and metrics on the validation split."""

from collections.abc import Callable

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from pcam_model.data.patch_loader import PatchLoader
from pcam_model.training.device import Precision, autocast
from pcam_model.training.network import PatchNetwork
from pcam_model.training.train_state import TrainState

BATCH_SIZE = {"cpu": 64, "cuda": 256}  # a CPU is slowed by activations that leave its caches


def predict_distributed(state: TrainState, loader: PatchLoader, on_batch: Callable[[], object]) -> Tensor:
    """Logits float32 (n, 2) of a whole split, on the host; each process computes its rows.

    `on_batch` is called before each batch in a world of one: several processes stop together, after a step only.
    """
    if state.dist.world_size == 1:
        return predict(state.network, loader, precision=state.precision, on_batch=on_batch)
    rows, logits = state.dist.batch_slice(len(loader)), torch.zeros(len(loader), 2)
    own = loader.slice(rows.start, rows.stop)
    logits[rows.start : rows.stop] = predict(state.network, own, precision=state.precision)
    return state.dist.all_reduce_sum(logits.to(loader.device)).cpu()


@torch.inference_mode()
def predict(
    network: PatchNetwork,
    loader: PatchLoader,
    batch_size: int | None = None,
    precision: Precision = "auto",
    on_batch: Callable[[], object] | None = None,
) -> Tensor:
    """Logits float32 (n, 2) of a whole split in its own order, without augmentation, on the host.

    Args:
        network: left in evaluation mode.
        loader: the split.
        batch_size: does not change the result beyond rounding; 64, and 256 on a GPU, by default.
        precision: of the configuration.
        on_batch: called before each batch.
    """
    network.eval()
    logits = []
    with autocast(loader.device, precision):
        for images, _ in loader.iterate(batch_size or BATCH_SIZE.get(loader.device.type, 64)):
            if on_batch:
                on_batch()
            logits.append(network(images).float())
    return torch.cat(logits).cpu()


def validation_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Loss, accuracy and AUC of logits (n, 2) for labels (n,), named as in `metrics.jsonl`."""
    probabilities = logits.double().softmax(1)[:, 1]
    return {
        "valid_loss": float(functional.cross_entropy(logits.double(), labels)),
        "valid_accuracy": float((logits.argmax(1) == labels).double().mean()),
        "valid_auc": float(roc_auc_score(labels.numpy(), probabilities.numpy())),
    }
