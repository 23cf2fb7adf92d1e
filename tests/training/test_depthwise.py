import pytest
import torch
from torch import nn

from pcam_model.training.depthwise import StridedDepthwise, convert_strided_depthwise
from pcam_model.training.network import PatchNetwork


@pytest.mark.parametrize(("arch", "expected"), [("mobilenet_v2", 4), ("efficientnet_b0", 4), ("resnet18", 0)])
def test_strided_depthwise_convolutions_are_found_and_keep_their_names(arch: str, expected: int) -> None:
    network = PatchNetwork(arch)
    layers = [module for module in network.modules() if isinstance(module, StridedDepthwise)]
    assert len(layers) == expected
    assert all(module.groups == module.in_channels and module.stride == (2, 2) for module in layers)


def test_they_compute_in_float32_and_return_the_dtype_of_their_input() -> None:
    plain = nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)
    images = torch.randn(2, 8, 16, 16)
    expected = plain(images)
    converted = convert_strided_depthwise(nn.Sequential(plain))
    assert torch.equal(converted(images), expected)
    with torch.autocast("cpu", torch.bfloat16):
        halved = converted(images.bfloat16())
    assert halved.dtype == torch.bfloat16
    assert torch.equal(halved, plain(images.bfloat16().float()).bfloat16())
