"""Skipping of steps whose loss or gradient is not finite, decided on the device without waiting for it."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pcam_model.training.layers import BATCHNORMS

MAX_SKIPPED_STEPS = 3  # consecutive skipped steps that end a training
INIT_SCALE, GROWTH_FACTOR, BACKOFF_FACTOR, GROWTH_INTERVAL = 2.0**16, 2.0, 0.5, 2000  # as torch.amp.GradScaler


class BatchNormStatistics:
    """The running statistics of all BatchNorm layers in training mode, to restore them after a skipped step."""

    def __init__(self, network: nn.Module):
        layers = [layer for layer in network.modules() if isinstance(layer, BATCHNORMS) and layer.training]
        buffers = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
        self.counts = [buffer for buffer in buffers if not buffer.is_floating_point()]
        self.statistics = [buffer for buffer in buffers if buffer.is_floating_point()]

    @torch.no_grad()
    def snapshot(self) -> tuple[Tensor, Tensor]:
        """A copy of all statistics, and of all counts of batches."""
        return _concatenate(self.statistics), _concatenate(self.counts)

    @torch.no_grad()
    def restore(self, snapshot: tuple[Tensor, Tensor], condition: Tensor) -> None:
        """Restore a copy where `condition` (bool, on the device) is true: a few kernels for all layers together."""
        groups = (self.statistics, self.counts)
        for before, buffers, now in zip(snapshot, groups, self.snapshot(), strict=True):
            if buffers:
                values = torch.split(torch.where(condition, before, now), [buffer.numel() for buffer in buffers])
                torch._foreach_copy_(
                    buffers, [value.view_as(buffer) for value, buffer in zip(values, buffers, strict=True)]
                )


class LossScaler:
    """Loss scale for float16, updated as by `torch.amp.GradScaler` but without waiting for the device."""

    def __init__(self, device: torch.device):
        self.scale = torch.full((), INIT_SCALE, device=device)
        self.growth_tracker = torch.zeros((), device=device)

    def update(self, found_inf: Tensor) -> None:
        """Halve the scale after a skipped step, double it after 2,000 good ones in a row; in place."""
        tracker = torch.where(found_inf, 0, self.growth_tracker + 1)
        grows = tracker >= GROWTH_INTERVAL
        grown = torch.where(grows, self.scale * GROWTH_FACTOR, self.scale)
        self.scale.copy_(torch.where(found_inf, self.scale * BACKOFF_FACTOR, grown))
        self.growth_tracker.copy_(torch.where(grows, 0, tracker))


def total_grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """L2 norm of all gradients together, a scalar on the device; not finite where one of them is not."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _concatenate(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.reshape(-1) for buffer in buffers]) if buffers else torch.empty(0)
