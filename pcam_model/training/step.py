"""One optimizer step, computed in microbatches where memory is short."""

from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pcam_model.core.errors import DeviceMemoryError
from pcam_model.core.log import log
from pcam_model.core.rng import BatchSlice, StepKey
from pcam_model.training.device import Precision, autocast, is_out_of_memory
from pcam_model.training.nan_guard import BatchNormSnapshot, total_grad_norm
from pcam_model.training.network import DROPOUT_RNG, PatchNetwork
from pcam_model.training.optimizer import set_lr
from pcam_model.training.train_state import TrainState


def train_step(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    lr: float,
    momentum: float,
    key: StepKey,
    *,
    label_smoothing: float = 0.0,
    max_grad_norm: float = 0.0,
    batch_slice: BatchSlice | None = None,
) -> Tensor:
    """Take one optimizer step; returns the batch's cross entropy, a scalar left on the device.

    Where the loss or a gradient is not finite the step is skipped: weights, optimizer, moving average and BatchNorm
    statistics stay as they were, and the loss is NaN (in float16 only once the loss scale has settled).

    Args:
        state: changed in place.
        images: float (B, 3, S, S), normalised.
        labels: int64 (B,), 0 or 1.
        lr: of the last layer group.
        momentum: AdamW's first beta.
        key: RNG key of the step's dropout.
        label_smoothing: fraction of each label's weight that is spread over both classes.
        max_grad_norm: gradients are clipped to this L2 norm; 0: no clipping.
        batch_slice: which rows of the whole batch these are; all of it by default.

    Raises:
        DeviceMemoryError: not even two patches at a time fit into memory.
    """
    set_lr(state.optimizer, lr, momentum)
    batch_slice = batch_slice or BatchSlice(0, len(images), len(images))
    batchnorm = BatchNormSnapshot(state.network)
    while True:
        try:
            loss = _forward_backward(state, images, labels, key, batch_slice, label_smoothing)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _refuse_distributed(state, batch_slice, error)
        batchnorm.restore(torch.ones((), dtype=torch.bool, device=state.device))
        state.optimizer.zero_grad(set_to_none=True)
        shrink_microbatches(state.network, batch_slice.stop - batch_slice.start)
    grad_norm = total_grad_norm(state.parameters())
    found_inf = ~(torch.isfinite(loss) & torch.isfinite(grad_norm))
    batchnorm.restore(found_inf)
    _optimizer_step(state, found_inf, grad_norm, max_grad_norm)
    state.step += 1
    if state.ema:
        state.ema.update(state.step, found_inf)
    settling = state.scaler.scale >= 1 if state.scaler else torch.zeros_like(found_inf)
    return torch.where(found_inf & ~settling, torch.nan, loss)


def compute_loss(
    network: PatchNetwork,
    images: Tensor,
    labels: Tensor,
    key: StepKey,
    *,
    label_smoothing: float = 0.0,
    precision: Precision = "auto",
) -> Tensor:
    """Cross entropy of a whole batch, a scalar on the device, with the dropout of the step `key`."""
    set_dropout_rng(network, BatchSlice(0, len(images), len(images)), key)
    return _cross_entropy(network, images, labels, precision, label_smoothing)


def set_dropout_rng(network: PatchNetwork, batch_slice: BatchSlice, key: StepKey) -> None:
    """Draw the dropout masks of a step for these rows of its batch."""
    device = next(network.parameters()).device
    network.draw_dropout(batch_slice, key.generator(DROPOUT_RNG, device.type))


def microbatches(batch_slice: BatchSlice, count: int) -> list[BatchSlice]:
    """A slice of a batch in `count` slices of the same size, but for one row."""
    rows = batch_slice.stop - batch_slice.start
    edges = [batch_slice.start + rows * i // count for i in range(count + 1)]
    return [BatchSlice(start, stop, batch_slice.batch_size) for start, stop in pairwise(edges)]


def shrink_microbatches(network: PatchNetwork, batch_size: int) -> None:
    """Compute a batch in twice as many microbatches, and log a warning.

    Raises:
        DeviceMemoryError: not even two patches at a time fit.
    """
    count = min(2 * network.microbatches, batch_size // 2)
    if count <= network.microbatches:
        raise DeviceMemoryError(
            f"not even {batch_size // network.microbatches} patches at a time fit into memory; take a smaller "
            "model.image_size or another model.arch, or a device with more memory"
        )
    network.set_microbatches(count)
    size = batch_size // count
    effect = f"BatchNorm sees {size} patches at a time" if network.body_trainable else "the head sees the whole batch"
    log.warning(
        "Memory is short: a batch of %d is computed %d patches at a time, as one step; %s", batch_size, size, effect
    )


def _forward_backward(
    state: TrainState, images: Tensor, labels: Tensor, key: StepKey, batch_slice: BatchSlice, label_smoothing: float
) -> Tensor:
    """Accumulate the gradients of the batch's mean loss over its microbatches; returns the loss."""
    state.optimizer.zero_grad(set_to_none=True)
    losses = list[Tensor]()
    for microbatch in microbatches(batch_slice, state.network.microbatches if state.network.body_trainable else 1):
        rows = slice(microbatch.start - batch_slice.start, microbatch.stop - batch_slice.start)
        set_dropout_rng(state.network, microbatch, key)
        with _gradient_sync(state, last=microbatch.stop == batch_slice.stop):
            loss = _cross_entropy(state.train_module, images[rows], labels[rows], state.precision, label_smoothing)
            loss = loss * (len(labels[rows]) / batch_slice.batch_size)
            scaled = loss * state.dist.world_size  # DDP averages gradients over the processes
            (scaled * state.scaler.scale if state.scaler else scaled).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return state.dist.all_reduce_sum(torch.stack(losses).sum())


def _gradient_sync(state: TrainState, last: bool) -> AbstractContextManager[None]:
    """DDP exchanges gradients once per step, after the last microbatch."""
    if isinstance(state.wrapped, DistributedDataParallel) and not last:
        no_sync: AbstractContextManager[None] = state.wrapped.no_sync()
        return no_sync
    return nullcontext()


def _cross_entropy(
    network: nn.Module, images: Tensor, labels: Tensor, precision: Precision, label_smoothing: float
) -> Tensor:
    with autocast(images.device, precision):
        logits = network(images)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def _optimizer_step(state: TrainState, found_inf: Tensor, grad_norm: Tensor, max_grad_norm: float) -> None:
    """Step the optimizer; the fused kernel itself skips the step where `found_inf`, as with GradScaler.

    Loss scale and clipping are one divisor, so that no pass over the gradients is made for them.
    """
    optimizer: Any = state.optimizer
    divisor = state.scaler.scale if state.scaler else torch.ones_like(grad_norm)
    if max_grad_norm:
        divisor = divisor * (grad_norm / divisor / max_grad_norm).clamp(min=1)
    optimizer.found_inf, optimizer.grad_scale = found_inf.float(), divisor if max_grad_norm or state.scaler else None
    optimizer.step()
    if state.scaler:
        state.scaler.update(found_inf)


def _refuse_distributed(state: TrainState, batch_slice: BatchSlice, error: BaseException) -> None:
    """Raise DeviceMemoryError where several processes train: their microbatches would differ."""
    if state.dist.world_size > 1:
        raise DeviceMemoryError(
            f"a process's {batch_slice.stop - batch_slice.start} patches of a batch do not fit into its memory; set a "
            "smaller batch_size, or compute.nproc_per_node=1, where a batch is computed in microbatches"
        ) from error
