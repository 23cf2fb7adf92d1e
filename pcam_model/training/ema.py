"""Exponential moving average of a network's weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightEMA:
    """Exponential moving average of a network's weights and buffers over about `horizon` steps."""

    def __init__(self, network: nn.Module, horizon: float):
        self.network, self.horizon = network, horizon
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        pairs = [(self.tensors[name], tensor.detach()) for name, tensor in network.state_dict().items()]
        self.averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self.copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int, skipped: Tensor) -> None:
        """Average in the weights after `step` steps; the horizon grows with the first steps, so they are forgotten.

        Args:
            step: optimizer steps so far, at least 1.
            skipped: bool on the device; where true, the average does not change.
        """
        weight = max(1 / max(self.horizon, 1), 9 / (step + 9)) * ~skipped
        averages, tensors = (list(group) for group in zip(*self.averaged, strict=True))
        if weight.is_cpu:
            torch._foreach_lerp_(averages, tensors, float(weight))
        else:  # a weight on the device would have `_foreach_lerp_` launch a kernel a tensor
            changes = torch._foreach_sub(tensors, averages)
            torch._foreach_mul_(changes, weight)
            torch._foreach_add_(averages, changes)
        if self.copied:
            copies, originals = (list(group) for group in zip(*self.copied, strict=True))
            torch._foreach_copy_(copies, originals)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the network the averaged weights inside the block, and its own back afterwards."""
        own = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Load the averages of a checkpoint."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
