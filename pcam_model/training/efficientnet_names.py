"""The names that lukemelas' EfficientNet-PyTorch, and what was made with it, give to the tensors of timm's networks."""

import re
from collections.abc import Sequence

OUTER = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
EXCITATION = {"se.conv_reduce": "_se_reduce", "se.conv_expand": "_se_expand"}
# The first convolution of a block without expansion is its depthwise one.
PLAIN = EXCITATION | {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
EXPANDED = EXCITATION | {
    **{"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"},
    **{"conv_pwl": "_project_conv", "bn3": "_bn2"},
}
BLOCK = re.compile(r"(blocks\.\d+\.\d+)\.(.+)")


def efficientnet_names(names: Sequence[str]) -> dict[str, str]:
    """The names of an EfficientNet's tensors in timm, by EfficientNet-PyTorch's; empty for other networks."""
    blocks = list(dict.fromkeys(found[1] for name in names if (found := BLOCK.match(name))))
    if "conv_stem.weight" not in names or not blocks:
        return {}
    layers = dict(OUTER)
    for number, block in enumerate(blocks):
        inner = EXPANDED if f"{block}.conv_pwl.weight" in names else PLAIN
        layers |= {f"{block}.{layer}": f"_blocks.{number}.{other}" for layer, other in inner.items()}
    parts = [(layer, tensor, name) for name in names for layer, _, tensor in [name.rpartition(".")] if layer in layers]
    return {f"{layers[layer]}.{tensor}": name for layer, tensor, name in parts}
