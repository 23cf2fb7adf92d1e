"""Depthwise convolutions that take steps of two pixels: in float32 on a processor, whose bfloat16 ones learn slowly."""

import torch
from torch import Tensor, nn


class StridedDepthwise(nn.Conv2d):
    """A convolution as it was, but for its numbers on a processor.

    oneDNN's pass backward through such a layer takes 4 to 40 times as long in bfloat16 as in float32: it was two fifths
    of a step of MobileNetV2 at 96 pixels.
    """

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H', W'), in the numbers that came."""
        if features.device.type != "cpu":
            return super().forward(features)
        with torch.autocast("cpu", enabled=False):
            return super().forward(features.float()).to(features.dtype)


def spare_bfloat16(body: nn.Module) -> nn.Module:
    """Have the body's strided depthwise convolutions compute so; their weights and names stay."""
    for module in body.modules():
        if type(module) is nn.Conv2d and 1 < module.groups == module.in_channels and module.stride != (1, 1):
            module.__class__ = StridedDepthwise
    return body
