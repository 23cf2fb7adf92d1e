"""Layers of the networks: concatenated pooling, and dropout whose masks are drawn from a generator."""

import torch
from torch import Tensor, nn

from pcam_model.core.rng import BatchSlice

BATCHNORMS = (nn.modules.batchnorm._BatchNorm,)  # base class of all of them, synchronised or not


def keep_random(_: nn.Module) -> None:
    """Leave a body the weights that it was made with."""


class ConcatPool(nn.Module):
    """Global max pooling concatenated with global average pooling: (B, C, H, W) -> (B, 2 C)."""

    def forward(self, features: Tensor) -> Tensor:
        """Both poolings over height and width."""
        return torch.cat([features.amax((2, 3)), features.mean((2, 3))], 1)


class Dropout(nn.Module):
    """Dropout whose mask is drawn beforehand, for a whole batch; with one column it drops whole residual branches.

    Where no mask was drawn, it comes from torch's global generator, as in `nn.Dropout`.
    """

    def __init__(self, p: float, columns: int):
        super().__init__()
        self.p, self.columns = p, columns
        self.keep_mask: Tensor | None = None
        """bool (B, columns) of the next forward passes, on their device."""

    def draw_mask(self, batch_slice: BatchSlice, rng: torch.Generator) -> Tensor:
        """Draw the mask of a batch on the host, and return these rows of it: bool (B, columns)."""
        drawn = batch_slice.of(torch.rand(batch_slice.batch_size, self.columns, generator=rng))
        return torch.from_numpy(drawn.numpy() >= self.p)  # by torch, a thread would get a team of OpenMP threads

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, ...) with `p` of the columns set to zero and the others scaled up; unchanged in evaluation mode."""
        if not self.training:
            return features
        keep_mask = self.keep_mask
        if keep_mask is None:
            keep_mask = torch.rand(len(features), self.columns, device=features.device) >= self.p
        scale = keep_mask.to(features.dtype) / (1 - self.p)
        return features * scale.view(len(features), -1, *[1] * (features.ndim - 2))
