"""A step whose numbers are not finite leaves no trace, and nobody waits to find that out."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pcam_model.training.network import BATCHNORMS

MAX_SKIPPED_STEPS = 3  # so many skipped steps one after the other end a training
SCALE, DOUBLE_AFTER = 2.0**16, 2000  # PyTorch's GradScaler's


class Statistics:
    """The running statistics of all BatchNorm layers as they were, to go back to."""

    def __init__(self, network: nn.Module):
        layers = [layer for layer in network.modules() if isinstance(layer, BATCHNORMS) and layer.training]
        buffers = [buffer for layer in layers for buffer in layer.buffers(recurse=False)]
        self.counts = [buffer for buffer in buffers if not buffer.is_floating_point()]
        self.values = [buffer for buffer in buffers if buffer.is_floating_point()]
        self.before = self._now()

    @torch.no_grad()
    def back(self, where: Tensor) -> None:
        """Go back where the bool on the device is true; a few kernels for all layers together, and no waiting."""
        for kept, buffers, now in zip(self.before, (self.values, self.counts), self._now(), strict=True):
            if buffers:
                parts = torch.split(torch.where(where, kept, now), [buffer.numel() for buffer in buffers])
                torch._foreach_copy_(buffers, [part.view_as(to) for part, to in zip(parts, buffers, strict=True)])

    def _now(self) -> tuple[Tensor, Tensor]:
        return _flat(self.values), _flat(self.counts)


class LossScale:
    """What a loss is multiplied by so that its gradients are not too small for float16; moves as GradScaler's does."""

    def __init__(self, device: torch.device):
        self.scale = torch.full((), SCALE, device=device)
        self.good = torch.zeros((), device=device)

    def update(self, skipped: Tensor) -> None:
        """Half of it after a step that was skipped, twice as much after 2,000 good ones in a row."""
        self.good = torch.where(skipped, 0, self.good + 1)
        grown = torch.where(self.good >= DOUBLE_AFTER, self.scale * 2, self.scale)
        self.scale = torch.where(skipped, self.scale / 2, grown)
        self.good = torch.where(self.good >= DOUBLE_AFTER, 0, self.good)


def norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Of all gradients together, a scalar on the device; not finite where one of them is not."""
    return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _flat(buffers: list[Tensor]) -> Tensor:
    return torch.cat([buffer.reshape(-1) for buffer in buffers]) if buffers else torch.empty(0)
