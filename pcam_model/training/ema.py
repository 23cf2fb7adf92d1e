"""The mean of the weights over the end of a cycle: what a stage leaves, where the config asks for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightEMA:
    """An exponential mean of a network's weights and statistics, over about `horizon` steps."""

    def __init__(self, network: nn.Module, horizon: float):
        self.network, self.horizon = network, horizon
        self.tensors = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int, skipped: Tensor) -> None:
        """Take in the weights after `step` steps; early on the mean is short, so that the start is forgotten.

        Args:
            step: how many.
            skipped: a bool on the device; where it is true, the mean stays as it is.
        """
        share = max(1 / max(self.horizon, 1), 9 / (step + 9)) * ~skipped
        weight = share if share.is_cuda else float(share)
        for name, tensor in self.network.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, weight)
            else:
                self.tensors[name].copy_(tensor)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the mean's weights inside, and its own again outside."""
        own = {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from the mean of a checkpoint."""
        for name, tensor in tensors.items():
            self.tensors[name].copy_(tensor)
