"""One optimizer step."""

from typing import Any

import torch
from torch import Tensor

from pcam_model.training.batch import TrainBatch, set_masks
from pcam_model.training.device import Precision
from pcam_model.training.gradients import BatchGradients, compute_gradients, cross_entropy
from pcam_model.training.network import PatchNetwork
from pcam_model.training.optimizer import set_lr
from pcam_model.training.train_state import TrainState


def train_step(
    state: TrainState,
    batch: TrainBatch,
    lr: float,
    momentum: float,
    *,
    label_smoothing: float = 0.0,
    max_grad_norm: float = 0.0,
) -> Tensor:
    """Take one optimizer step; returns the batch's cross entropy, a scalar left on the device.

    Where the loss or a gradient is not finite the step is skipped: weights, optimizer, moving average and BatchNorm
    statistics stay as they were, and the loss is NaN (in float16 only once the loss scale has settled).

    Args:
        state: changed in place.
        batch: this process's rows of the batch.
        lr: of the last layer group.
        momentum: AdamW's first beta.
        label_smoothing: fraction of each label's weight that is spread over both classes.
        max_grad_norm: gradients are clipped to this L2 norm; 0: no clipping.

    Raises:
        DeviceMemoryError: not even two patches at a time fit into memory.
    """
    set_lr(state.optimizer, lr, momentum)
    gradients = compute_gradients(state, batch, label_smoothing)
    _optimizer_step(state, gradients, max_grad_norm)
    state.step += 1
    if state.ema:
        state.ema.update(state.step, gradients.found_inf)
    settling = state.scaler.scale >= 1 if state.scaler else torch.zeros_like(gradients.found_inf)
    return torch.where(gradients.found_inf & ~settling, torch.nan, gradients.loss)


def compute_loss(
    network: PatchNetwork, batch: TrainBatch, *, label_smoothing: float = 0.0, precision: Precision = "auto"
) -> Tensor:
    """Cross entropy of a batch, a scalar on the device, with the dropout of its step."""
    rows = slice(0, len(batch))
    set_masks(network, batch.masks(rows))
    images = batch.images(batch.patches(), rows)
    return cross_entropy(network, images, batch.labels(rows), precision, label_smoothing)


def _optimizer_step(state: TrainState, gradients: BatchGradients, max_grad_norm: float) -> None:
    """Step the optimizer; the fused kernel itself skips the step where `found_inf`, as with GradScaler.

    Loss scale and clipping are one divisor, so that no pass over the gradients is made for them.
    """
    optimizer: Any = state.optimizer
    found_inf, norm = gradients.found_inf, gradients.norm
    divisor = state.scaler.scale if state.scaler else torch.ones_like(norm)
    if max_grad_norm:
        divisor = divisor * (norm / divisor / max_grad_norm).clamp(min=1)
    optimizer.found_inf, optimizer.grad_scale = found_inf.float(), divisor if max_grad_norm or state.scaler else None
    optimizer.step()
    if state.scaler:
        state.scaler.update(found_inf)
