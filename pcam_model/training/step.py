"""One optimizer step."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pcam_model.core.errors import ConfigError
from pcam_model.core.rng import BatchSlice, generator
from pcam_model.training.device import (
    ComputeConfig,
    Precision,
    half_precision,
    make_deterministic,
    mixed,
    out_of_memory,
)
from pcam_model.training.distributed import SINGLE_PROCESS, DistContext, convert_sync_batchnorm
from pcam_model.training.ema import WeightEMA
from pcam_model.training.nan_guard import LossScale, Statistics, norm
from pcam_model.training.network import DROPOUT, PatchNetwork
from pcam_model.training.optimizer import make_optimizer, set_lr

ENGINE = 2  # raised where the same config and data no longer give the same steps: older checkpoints are refused then


@dataclass
class TrainState:
    """All that changes while a stage is trained."""

    network: PatchNetwork
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimizer steps taken in this stage."""
    ema: WeightEMA | None = None
    """The mean of the weights, where the config asks for one."""
    dist: DistContext = SINGLE_PROCESS
    """Which of how many processes that share each batch."""
    learner: torch.nn.Module | None = None
    """The network as it is called in training, where that is not the network itself: compiled, or joined to others'."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch so far, where the config stops early."""
    precision: Precision = "auto"
    scale: LossScale | None = None
    """In float16."""

    @property
    def called(self) -> torch.nn.Module:
        """The network as it is called in training."""
        return self.network if self.learner is None else self.learner  # a compiled one has no truth value

    def parameters(self) -> list[torch.nn.Parameter]:
        """All that learns."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]


def new_state(
    network: PatchNetwork,
    multipliers: list[float],
    device: torch.device,
    compute: ComputeConfig,
    ema: WeightEMA | None = None,
    dist: DistContext = SINGLE_PROCESS,
) -> TrainState:
    """The start of a training: AdamW over the layer groups, in the config's numbers."""
    half = half_precision(device, compute.precision)
    make_deterministic(compute.deterministic)
    if dist.world > 1:
        convert_sync_batchnorm(network, device)
    learner: torch.nn.Module = network
    if compute.compile:
        learner = compiled(network)
    if dist.world > 1:
        learner = dist.joined(learner)
    return TrainState(
        network,
        make_optimizer(network, multipliers),
        ema=ema,
        dist=dist,
        learner=None if learner is network else learner,
        precision=compute.precision,
        scale=LossScale(device) if half == torch.float16 else None,
    )


def compiled(network: PatchNetwork) -> torch.nn.Module:
    """The network, compiled when it is first called."""
    return torch.compile(network)  # type: ignore[return-value]


def loss_of(
    network: PatchNetwork,
    images: Tensor,
    labels: Tensor,
    *place: int,
    label_smoothing: float = 0.0,
    precision: Precision = "auto",
) -> Tensor:
    """Cross entropy, a scalar on the device; `place` (seed, stage, epoch, step) decides what dropout drops."""
    set_dropout_rng(network, BatchSlice(0, len(images), len(images)), *place)
    return _loss(network, images, labels, precision, label_smoothing)


def set_dropout_rng(network: PatchNetwork, share: BatchSlice, *place: int) -> None:
    """Choose what is dropped at a place, (seed, stage, epoch, step)."""
    device = next(network.parameters()).device
    network.set_dropout_rng(share, generator(place[0], DROPOUT, *place[1:], device=device.type))


def train_step(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    lr: float,
    momentum: float,
    *place: int,
    label_smoothing: float = 0.0,
    max_grad_norm: float = 0.0,
    share: BatchSlice | None = None,
) -> Tensor:
    """One step down the cross entropy; returns its loss, a scalar left on the device.

    Where the loss or a gradient is not finite the step is skipped: weights, optimizer, mean and BatchNorm's statistics
    stay as they were, and the loss returned is not a number (but for float16, while it looks for a loss scale).

    Args:
        state: changed in place.
        images: float (B, 3, S, S), normalised.
        labels: int64 (B,), 0 or 1.
        rate: of the highest layer group.
        momentum: AdamW's first beta.
        place: seed, stage, epoch, step.
        smoothing: share of each label's weight that is spread over both classes.
        clip: the gradient's largest norm; 0: any.
        share: which rows of the whole batch these are; all of it by default.
    """
    set_lr(state.optimizer, lr, momentum)
    share, statistics = share or BatchSlice(0, len(images), len(images)), Statistics(state.network)
    loss = _fitting(
        state, share, statistics, lambda: _forward_and_backward(state, images, labels, share, label_smoothing, *place)
    )
    length = norm(state.parameters())
    skipped = ~(torch.isfinite(loss) & torch.isfinite(length))
    statistics.back(skipped)
    _move(state, skipped, length, max_grad_norm)
    state.step += 1
    if state.ema:
        state.ema.update(state.step, skipped)
    searching = state.scale.scale >= 1 if state.scale else torch.zeros_like(skipped)
    return torch.where(skipped & ~searching, torch.nan, loss)


def _forward_and_backward(
    state: TrainState, images: Tensor, labels: Tensor, share: BatchSlice, label_smoothing: float, *place: int
) -> Tensor:
    """Gradients of the batch's mean loss, in as many parts as memory asks for; returns the loss."""
    state.optimizer.zero_grad(set_to_none=True)
    losses = list[Tensor]()
    for part in microbatches(share, state.network.parts if state.network.body_learns else 1):
        here = slice(part.start - share.start, part.stop - share.start)
        set_dropout_rng(state.network, part, *place)
        with _alone(state, last=part.stop == share.stop):
            loss = _loss(state.called, images[here], labels[here], state.precision, label_smoothing)
            loss = loss * (len(labels[here]) / share.whole)
            scaled = loss * state.dist.world  # gradients are averaged over the processes
            (scaled * state.scale.scale if state.scale else scaled).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return state.dist.total(torch.stack(losses).sum())


def _alone(state: TrainState, last: bool) -> AbstractContextManager[None]:
    """Gradients are exchanged with the other processes once a step, after its last part."""
    if isinstance(state.learner, DistributedDataParallel) and not last:
        without: AbstractContextManager[None] = state.learner.no_sync()
        return without
    return nullcontext()


def microbatches(share: BatchSlice, parts: int) -> list[BatchSlice]:
    """A share in parts of the same size, but for one row."""
    edges = [share.start + (share.stop - share.start) * i // parts for i in range(parts + 1)]
    return [BatchSlice(start, stop, share.whole) for start, stop in pairwise(edges)]


def _loss(
    network: torch.nn.Module, images: Tensor, labels: Tensor, precision: Precision, label_smoothing: float
) -> Tensor:
    with mixed(images.device, precision):
        logits = network(images)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=label_smoothing)


def _move(state: TrainState, skipped: Tensor, length: Tensor, max_grad_norm: float) -> None:
    """The optimizer's step, skipped by the kernel itself where it has to be, as GradScaler has fused optimizers do.

    The loss scale and the clipping are one divisor, so that no pass over the gradients is made for them.
    """
    optimizer: Any = state.optimizer
    divisor = state.scale.scale if state.scale else torch.ones_like(length)
    if max_grad_norm:
        divisor = divisor * (length / divisor / max_grad_norm).clamp(min=1)
    optimizer.found_inf, optimizer.grad_scale = skipped.float(), divisor if max_grad_norm or state.scale else None
    optimizer.step()
    if state.scale:
        state.scale.update(skipped)


def _fitting(state: TrainState, share: BatchSlice, statistics: Statistics, work: Callable[[], Tensor]) -> Tensor:
    """Do the work, in ever smaller parts while memory is too short for it."""
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if state.dist.world > 1:
                raise ConfigError(
                    f"a process's share of {share.stop - share.start} patches of a batch does not fit into its memory; "
                    "set a smaller batch, or compute.nproc_per_node=1, where it is computed in parts"
                ) from error
        statistics.back(torch.ones((), dtype=torch.bool, device=statistics.before[0].device))
        state.optimizer.zero_grad(set_to_none=True)
        shrink_microbatch(state.network, share.stop - share.start)


def shrink_microbatch(network: PatchNetwork, batch_size: int) -> None:
    """Twice as many parts a batch, said aloud.

    Raises:
        ConfigError: not even two patches at a time fit.
    """
    parts = min(2 * network.parts, batch_size // 2)
    if parts <= network.parts:
        raise ConfigError(
            f"not even {batch_size // network.parts} patches at a time fit into memory; take a smaller model.image_size or "
            "another model.arch, or a device with more memory"
        )
    network.set_microbatches(parts)
    seen = (
        f"and BatchNorm sees {batch_size // parts} patches at a time"
        if network.body_learns
        else "the head sees them all"
    )
    print(
        f"Memory is short: a batch of {batch_size} is computed {batch_size // parts} patches at a time, as one step; {seen}"
    )
