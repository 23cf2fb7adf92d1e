"""Strided depthwise convolutions, which on a CPU are computed in float32: in bfloat16 their backward pass is slow."""

from functools import cache

import torch
from torch import Tensor, nn


class StridedDepthwise(nn.Conv2d):
    """A depthwise convolution that leaves autocast on a CPU.

    oneDNN's backward pass through such a layer takes 4 to 40 times as long in bfloat16 as in float32: it was two fifths
    of a step of MobileNetV2 at 96 pixels.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W'), in the dtype of the input."""
        if features.device.type != "cpu":
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.float()).to(features.dtype)


def convert_strided_depthwise(body: nn.Module) -> nn.Module:
    """Turn the strided depthwise convolutions of a body into `StridedDepthwise`, in place; weights and names stay."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels and module.stride != (1, 1):
            module.__class__ = _strided_depthwise(type(module))  # type: ignore[arg-type]
    return body


@cache
def _strided_depthwise(kind: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """The class of a convolution as `StridedDepthwise`: the padding of timm's own kinds stays."""
    return (
        StridedDepthwise
        if kind is nn.Conv2d
        else type(f"StridedDepthwise{kind.__name__}", (StridedDepthwise, kind), {})
    )
