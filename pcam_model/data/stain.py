"""Stain jitter: each patch as another laboratory might have stained it, for a whole batch at once.

Haematoxylin, eosin and the rest are unmixed (Ruifrok and Johnston 2001), each made stronger or weaker and shifted
(Tellez et al. 2018), and mixed again: one 3 x 3 matrix and one vector a patch, in optical density.
"""

import torch
from torch import Tensor

STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of red, green and blue in one unit of haematoxylin, eosin and DAB."""
SHIFT = 0.5  # of the strength, in natural optical density: even what took no stain is tinted
DARKEST = 1e-3


def jitter(images: Tensor, strength: float, draw: torch.Generator) -> Tensor:
    """Images with each stain's amount times 1 +- strength, plus up to +- strength / 2; drawn on the host.

    Args:
        images: float (B, 3, H, W) in 0..1.
        strength: 0.05 is light, 0.2 strong.
        draw: where the randomness comes from.

    Returns:
        float (B, 3, H, W) in 0..1.
    """
    factors, shifts = drawn(len(images), strength, draw)
    return restained(images, factors.to(images.device), shifts.to(images.device))


def drawn(count: int, strength: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factors and shifts of the three stains, (count, 3) each."""
    factors, shifts = strength * (2 * torch.rand(2, count, 3, generator=draw) - 1)
    return 1 + factors, SHIFT * shifts


def restained(images: Tensor, factors: Tensor, shifts: Tensor) -> Tensor:
    """Images (B, 3, H, W) in 0..1 whose stains are multiplied by `factors` (B, 3) and raised by `shifts` (B, 3)."""
    mix = torch.tensor(STAINS, device=images.device)
    change = (mix.inverse() @ torch.diag_embed(factors) @ mix).mT
    density = torch.baddbmm((shifts @ mix)[..., None], change, _density(images).flatten(2))
    return density.clamp_min_(0).neg_().exp_().view_as(images)


def amounts(images: Tensor) -> Tensor:
    """How much haematoxylin, eosin and DAB each pixel took, (B, 3, H, W), from images (B, 3, H, W) in 0..1."""
    unmix = torch.tensor(STAINS, device=images.device).inverse().T
    return (unmix @ _density(images).flatten(2)).view_as(images)


def _density(images: Tensor) -> Tensor:
    return images.clamp_min(DARKEST).log().neg()
