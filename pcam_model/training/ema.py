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

    @torch.no_grad()
    def update(self, step: int, skipped: Tensor) -> None:
        """Average in the weights after `step` steps; the horizon grows with the first steps, so they are forgotten.

        Args:
            step: optimizer steps so far, at least 1.
            skipped: bool on the device; where true, the average does not change.
        """
        on_device = max(1 / max(self.horizon, 1), 9 / (step + 9)) * ~skipped
        weight = on_device if on_device.is_cuda else float(on_device)
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, weight)
            else:
                self.tensors[name].copy_(tensor)

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
