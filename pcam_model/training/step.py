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

from pcam_model.core.errors import BadPlan
from pcam_model.core.rng import Share, generator
from pcam_model.training.ema import Average
from pcam_model.training.device import (
    ComputePlan,
    Precision,
    half_precision,
    make_deterministic,
    mixed,
    out_of_memory,
)
from pcam_model.training.nan_guard import LossScale, Statistics, norm
from pcam_model.training.network import DROPOUT, PatchNetwork
from pcam_model.training.optimizer import make_optimizer, set_rate
from pcam_model.training.distributed import ALONE, Ranks, with_common_statistics

ENGINE = 2  # raised where the same plan and data no longer give the same steps: older checkpoints are refused then


@dataclass
class TrainState:
    """All that changes while a stage is trained."""

    network: PatchNetwork
    optimizer: torch.optim.Optimizer
    step: int = 0
    """Optimizer steps taken in this stage."""
    average: Average | None = None
    """The mean of the weights, where the plan asks for one."""
    ranks: Ranks = ALONE
    """Which of how many processes that share each batch."""
    learner: torch.nn.Module | None = None
    """The network as it is called in training, where that is not the network itself: compiled, or joined to others'."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """The weights of the best epoch so far, where the plan stops early."""
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
    compute: ComputePlan,
    average: Average | None = None,
    ranks: Ranks = ALONE,
) -> TrainState:
    """The start of a training: AdamW over the layer groups, in the plan's numbers."""
    half = half_precision(device, compute.precision)
    make_deterministic(compute.deterministic)
    if ranks.world > 1:
        with_common_statistics(network, device)
    learner: torch.nn.Module = network
    if compute.compile:
        learner = compiled(network)
    if ranks.world > 1:
        learner = ranks.joined(learner)
    return TrainState(
        network,
        make_optimizer(network, multipliers),
        average=average,
        ranks=ranks,
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
    smoothing: float = 0.0,
    precision: Precision = "auto",
) -> Tensor:
    """Cross entropy, a scalar on the device; `place` (seed, stage, epoch, step) decides what dropout drops."""
    draw_dropout(network, Share(0, len(images), len(images)), *place)
    return _loss(network, images, labels, precision, smoothing)


def draw_dropout(network: PatchNetwork, share: Share, *place: int) -> None:
    """Choose what is dropped at a place, (seed, stage, epoch, step)."""
    device = next(network.parameters()).device
    network.draw_dropout(share, generator(place[0], DROPOUT, *place[1:], device=device.type))


def train_step(
    state: TrainState,
    images: Tensor,
    labels: Tensor,
    rate: float,
    momentum: float,
    *place: int,
    smoothing: float = 0.0,
    clip: float = 0.0,
    share: Share | None = None,
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
    set_rate(state.optimizer, rate, momentum)
    share, statistics = share or Share(0, len(images), len(images)), Statistics(state.network)
    loss = _fitting(
        state, share, statistics, lambda: _forward_and_backward(state, images, labels, share, smoothing, *place)
    )
    length = norm(state.parameters())
    skipped = ~(torch.isfinite(loss) & torch.isfinite(length))
    statistics.back(skipped)
    _move(state, skipped, length, clip)
    state.step += 1
    if state.average:
        state.average.update(state.step, skipped)
    searching = state.scale.scale >= 1 if state.scale else torch.zeros_like(skipped)
    return torch.where(skipped & ~searching, torch.nan, loss)


def _forward_and_backward(
    state: TrainState, images: Tensor, labels: Tensor, share: Share, smoothing: float, *place: int
) -> Tensor:
    """Gradients of the batch's mean loss, in as many parts as memory asks for; returns the loss."""
    state.optimizer.zero_grad(set_to_none=True)
    losses = list[Tensor]()
    for part in parts_of(share, state.network.parts if state.network.body_learns else 1):
        here = slice(part.start - share.start, part.stop - share.start)
        draw_dropout(state.network, part, *place)
        with _alone(state, last=part.stop == share.stop):
            loss = _loss(state.called, images[here], labels[here], state.precision, smoothing)
            loss = loss * (len(labels[here]) / share.whole)
            scaled = loss * state.ranks.world  # gradients are averaged over the processes
            (scaled * state.scale.scale if state.scale else scaled).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
    return state.ranks.total(torch.stack(losses).sum())


def _alone(state: TrainState, last: bool) -> AbstractContextManager[None]:
    """Gradients are exchanged with the other processes once a step, after its last part."""
    if isinstance(state.learner, DistributedDataParallel) and not last:
        without: AbstractContextManager[None] = state.learner.no_sync()
        return without
    return nullcontext()


def parts_of(share: Share, parts: int) -> list[Share]:
    """A share in parts of the same size, but for one row."""
    edges = [share.start + (share.stop - share.start) * i // parts for i in range(parts + 1)]
    return [Share(start, stop, share.whole) for start, stop in pairwise(edges)]


def _loss(network: torch.nn.Module, images: Tensor, labels: Tensor, precision: Precision, smoothing: float) -> Tensor:
    with mixed(images.device, precision):
        logits = network(images)
    return functional.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def _move(state: TrainState, skipped: Tensor, length: Tensor, clip: float) -> None:
    """The optimizer's step, skipped by the kernel itself where it has to be, as GradScaler has fused optimizers do.

    The loss scale and the clipping are one divisor, so that no pass over the gradients is made for them.
    """
    optimizer: Any = state.optimizer
    divisor = state.scale.scale if state.scale else torch.ones_like(length)
    if clip:
        divisor = divisor * (length / divisor / clip).clamp(min=1)
    optimizer.found_inf, optimizer.grad_scale = skipped.float(), divisor if clip or state.scale else None
    optimizer.step()
    if state.scale:
        state.scale.update(skipped)


def _fitting(state: TrainState, share: Share, statistics: Statistics, work: Callable[[], Tensor]) -> Tensor:
    """Do the work, in ever smaller parts while memory is too short for it."""
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if state.ranks.world > 1:
                raise BadPlan(
                    f"a process's share of {share.stop - share.start} patches of a batch does not fit into its memory; "
                    "set a smaller batch, or compute.ranks=1, where it is computed in parts"
                ) from error
        statistics.back(torch.ones((), dtype=torch.bool, device=statistics.before[0].device))
        state.optimizer.zero_grad(set_to_none=True)
        smaller(state.network, share.stop - share.start)


def smaller(network: PatchNetwork, batch: int) -> None:
    """Twice as many parts a batch, said aloud.

    Raises:
        BadPlan: not even two patches at a time fit.
    """
    parts = min(2 * network.parts, batch // 2)
    if parts <= network.parts:
        raise BadPlan(
            f"not even {batch // network.parts} patches at a time fit into memory; take a smaller network.size or "
            "another network.name, or a device with more memory"
        )
    network.in_parts(parts)
    seen = f"and BatchNorm sees {batch // parts} patches at a time" if network.body_learns else "the head sees them all"
    print(f"Memory is short: a batch of {batch} is computed {batch // parts} patches at a time, as one step; {seen}")
