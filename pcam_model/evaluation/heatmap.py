"""Grad-CAM heatmaps of the predicted class."""

from typing import Any

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pcam_model.data.image import CENTRE_SIZE, PATCH_SIZE
from pcam_model.training.timm_body import TimmBody, ToMap

Array = NDArray[Any]
MIN_MAP_SIZE = 6  # pixels; a coarser feature map cannot tell the centre of a patch from its rim
CENTRE = slice((PATCH_SIZE - CENTRE_SIZE) // 2, (PATCH_SIZE + CENTRE_SIZE) // 2)


def grad_cam(network: nn.Module, images: Tensor, classes: Tensor, size: int | None = None) -> Tensor:
    """Heat (B, size, size) in 0..1 of what speaks for `classes` (B,), all zero where nothing does.

    Grad-CAM of the log odds of the class, at the last feature map of at least 6 x 6. `images`: normalised float
    (B, 3, S, S); `size`: of the heat in pixels, S by default. The network is left as it was.
    """
    training = network.training
    network.eval()
    outputs: list[Tensor] = []

    def detach_output(_: nn.Module, __: object, output: Tensor) -> Tensor:
        outputs.append(output.detach().requires_grad_())
        return outputs[-1]

    module = last_feature_map(network, images[:1])
    to_map = _candidates(network)[module]
    hook = module.register_forward_hook(detach_output)
    try:
        with torch.enable_grad():
            logits = network(images).float()
            sign = 2 * classes.to(logits) - 1
            (gradients,) = torch.autograd.grad((sign * (logits[:, 1] - logits[:, 0])).sum(), outputs[0])
    finally:
        hook.remove()
        network.train(training)
    weights = to_map(gradients).mean((2, 3), keepdim=True)
    heat = (weights * to_map(outputs[0].detach())).sum(1, keepdim=True).relu().float()
    target = (size or images.shape[-1],) * 2
    heat = functional.interpolate(heat, size=target, mode="bilinear", align_corners=False).squeeze(1)
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(1e-12)


def last_feature_map(network: nn.Module, image: Tensor) -> nn.Module:
    """The module whose output is the last feature map of at least 6 x 6 for an image (1, 3, S, S), else the largest."""
    maps: list[tuple[int, nn.Module]] = []
    candidates = _candidates(network)

    def record_size(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and (features := candidates[module](output)).dim() == 4:
            maps.append((min(features.shape[-2:]), module))

    hooks = [module.register_forward_hook(record_size) for module in candidates]
    try:
        with torch.no_grad():
            network(image)
    finally:
        for hook in hooks:
            hook.remove()
    min_size = min(MIN_MAP_SIZE, max(size for size, _ in maps))
    return [module for size, module in maps if size >= min_size][-1]


def _candidates(network: nn.Module) -> dict[nn.Module, ToMap]:
    """The modules whose outputs may be feature maps, each with what turns its output into (B, C, H, W)."""
    body = getattr(network, "body", None)
    if isinstance(body, TimmBody):  # within transformers, attention and channels look like maps too
        return body.feature_modules()
    return {module: lambda output: output for module in network.modules() if module is not network}


def share_in_centre(heat: Array) -> Array:
    """Share (B,) of the heat (B, 96, 96) inside the centre 32 x 32, by chance 1/9; NaN for a blank map."""
    heat = np.asarray(heat, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(heat[:, CENTRE, CENTRE].sum(axis=(1, 2)) / heat.sum(axis=(1, 2)))


def overlay(patch: NDArray[np.uint8], heat: Array) -> NDArray[np.uint8]:
    """The patch (96, 96, 3) in grey, with the heat (96, 96) over it."""
    grey = np.repeat(patch.mean(axis=2, keepdims=True), 3, axis=2) / 255
    colour = matplotlib.colormaps["inferno"](heat)[..., :3]
    weight = (0.15 + 0.6 * np.asarray(heat))[..., None]
    return np.asarray(np.rint(255 * ((1 - weight) * grey + weight * colour)), dtype=np.uint8)
