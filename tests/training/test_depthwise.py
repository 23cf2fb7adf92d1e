import pytest
import torch
from torch import nn

from pcam_model.training.depthwise import StridedDepthwise, spare_bfloat16
from pcam_model.training.network import PatchNetwork


@pytest.mark.parametrize(("name", "expected"), [("mobilenet_v2", 4), ("efficientnet_b0", 4), ("resnet18", 0)])
def test_strided_depthwise_convolutions_are_found_and_keep_their_names(name: str, expected: int) -> None:
    network = PatchNetwork(name)
    found = [module for module in network.modules() if isinstance(module, StridedDepthwise)]
    assert len(found) == expected
    assert all(module.groups == module.in_channels and module.stride == (2, 2) for module in found)


def test_their_numbers_are_float32_inside_and_what_came_outside() -> None:
    plain = nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False)
    images = torch.randn(2, 8, 16, 16)
    expected = plain(images)
    spared = spare_bfloat16(nn.Sequential(plain))
    assert torch.equal(spared(images), expected)
    with torch.autocast("cpu", torch.bfloat16):
        halved = spared(images.bfloat16())
    assert halved.dtype == torch.bfloat16
    assert torch.equal(halved, plain(images.bfloat16().float()).bfloat16())
