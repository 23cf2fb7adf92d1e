"""Gradients of a batch: whole, as a CUDA graph where that pays, or in microbatches where memory is short."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pcam_model.core.errors import DeviceMemoryError
from pcam_model.core.log import log
from pcam_model.training.batch import TrainBatch, set_masks
from pcam_model.training.device import Precision, autocast, is_out_of_memory, release_memory
from pcam_model.training.nan_guard import total_grad_norm
from pcam_model.training.network import PatchNetwork
from pcam_model.training.train_state import TrainState


class BatchGradients(NamedTuple):
    """What a backward pass leaves beside the gradients: scalars on the device."""

    loss: Tensor
    """Cross entropy of the whole batch."""
    norm: Tensor
    """L2 norm of all gradients together, times the loss scale."""
    found_inf: Tensor
    """bool: the loss or a gradient is not finite; BatchNorm's statistics are as they were then."""


def compute_gradients(state: TrainState, batch: TrainBatch, label_smoothing: float) -> BatchGradients:
    """Set the gradients of the batch's mean loss; in as many microbatches as memory needs.

    Raises:
        DeviceMemoryError: not even two patches at a time fit into memory.
    """
    while True:
        statistics = state.batchnorm.snapshot()
        try:
            return _compute(state, batch, statistics, label_smoothing)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            _refuse_distributed(state, batch, error)
        state.batchnorm.restore(statistics, torch.ones((), dtype=torch.bool, device=state.device))
        state.drop_graph()
        state.optimizer.zero_grad(set_to_none=True)
        release_memory(state.device)
        shrink_microbatches(state.network, len(batch))


def cross_entropy(
    network: nn.Module, images: Tensor, labels: Tensor, precision: Precision, label_smoothing: float = 0.0
) -> Tensor:
    """Mean cross entropy of a forward pass in the configured precision, a scalar on the device."""
    with autocast(images.device, precision):
        logits = network(images)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


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


def _compute(
    state: TrainState, batch: TrainBatch, statistics: tuple[Tensor, Tensor], label_smoothing: float
) -> BatchGradients:
    patches, slices = batch.patches(), _microbatches(state.network, len(batch))
    if len(slices) > 1 or state.graph is None:
        state.optimizer.zero_grad(set_to_none=True)
        losses = list[Tensor]()
        for rows in slices:
            images, labels, masks = batch.images(patches, rows), batch.labels(rows), batch.masks(rows)
            with _gradient_sync(state, last=rows is slices[-1]):
                losses.append(_backward(state, images, labels, masks, label_smoothing, batch.batch_slice.batch_size))
        return _guarded(state, losses, statistics)
    return _replay(state, batch, patches, label_smoothing)


def _replay(state: TrainState, batch: TrainBatch, patches: Tensor, label_smoothing: float) -> BatchGradients:
    """Gradients of the whole batch by the state's CUDA graph."""
    assert state.graph is not None
    rows = slice(0, len(batch))

    def compute(images: Tensor, labels: Tensor, *masks: Tensor) -> BatchGradients:
        statistics = state.batchnorm.snapshot()
        loss = _backward(state, images, labels, masks, label_smoothing, len(batch))
        return _guarded(state, [loss], statistics)

    inputs = (batch.images(patches, rows), batch.labels(rows), *batch.masks(rows))
    return BatchGradients(*state.graph(compute, inputs, lambda: state.optimizer.zero_grad(set_to_none=True)))


def _backward(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    masks: Sequence[Tensor],
    label_smoothing: float,
    batch_size: int,
) -> Tensor:
    """Add the gradients of some rows' share of the batch's mean loss; returns that share."""
    set_masks(state.network, masks)
    loss = cross_entropy(state.train_module, images, labels, state.precision, label_smoothing)
    loss = loss * (len(labels) / batch_size)
    scaled = loss * state.dist.world_size  # DDP averages gradients over the processes
    (scaled * state.scaler.scale if state.scaler else scaled).backward()  # type: ignore[no-untyped-call]
    return loss.detach()


def _guarded(state: TrainState, losses: list[Tensor], statistics: tuple[Tensor, Tensor]) -> BatchGradients:
    """The batch's loss and norm; BatchNorm's statistics restored where one of them is not finite."""
    loss = state.dist.all_reduce_sum(torch.stack(losses).sum())
    norm = total_grad_norm(state.parameters())
    found_inf = ~(torch.isfinite(loss) & torch.isfinite(norm))
    state.batchnorm.restore(statistics, found_inf)
    return BatchGradients(loss, norm, found_inf)


def _microbatches(network: PatchNetwork, rows: int) -> list[slice]:
    """The rows of each microbatch; all in one where the body is computed without autograd."""
    count = network.microbatches if network.body_trainable else 1
    return [slice(start, stop) for start, stop in pairwise(rows * i // count for i in range(count + 1))]


def _gradient_sync(state: TrainState, last: bool) -> AbstractContextManager[None]:
    """DDP exchanges gradients once per step, after the last microbatch."""
    if isinstance(state.wrapped, DistributedDataParallel) and not last:
        no_sync: AbstractContextManager[None] = state.wrapped.no_sync()
        return no_sync
    return nullcontext()


def _refuse_distributed(state: TrainState, batch: TrainBatch, error: BaseException) -> None:
    """Raise DeviceMemoryError where several processes train: their microbatches would differ."""
    if state.dist.world_size > 1:
        raise DeviceMemoryError(
            f"a process's {len(batch)} patches of a batch do not fit into its memory; set a smaller batch_size, or "
            "compute.nproc_per_node=1, where a batch is computed in microbatches"
        ) from error
