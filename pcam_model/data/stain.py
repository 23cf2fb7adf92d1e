"""Stain jitter: each patch as another laboratory might have stained it, for a whole batch at once.

Haematoxylin, eosin and DAB are unmixed (Ruifrok and Johnston 2001), each made stronger or weaker and shifted (Tellez et
al. 2018), and mixed again: one 3 x 3 matrix and one vector a patch, in optical density.
"""

from functools import cache

import torch
from torch import Tensor

from pcam_model.core.rng import BatchSlice

STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of red, green and blue in one unit of haematoxylin, eosin and DAB."""
SHIFT = 0.5  # of the strength, in natural optical density: unstained tissue is tinted too
MIN_LEVEL = 0.4  # of 255: where the density of black is cut off; it is rounded to black again


def draw_stain_maps(strength: float, rng: torch.Generator, batch_slice: BatchSlice) -> Tensor:
    """Draw each patch's stain jitter on the host: amounts of stain times 1 +- strength, plus up to +- strength / 2.

    Args:
        strength: 0.05 is light, 0.2 strong, 0 draws nothing.
        rng: source of the random numbers.
        batch_slice: which rows of the batch are kept.

    Returns:
        float32 (B, 4, 3): affine maps of optical density, a 3 x 3 matrix above a shift; (0, 4, 3) for strength 0.
    """
    if not strength:
        return torch.empty(0, 4, 3)
    factors, shifts = (batch_slice.of(drawn) for drawn in draw_changes(batch_slice.batch_size, strength, rng))
    return stain_maps(factors, shifts)


def draw_changes(count: int, strength: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factors and shifts of the three stains, (count, 3) each."""
    factors, shifts = strength * (2 * torch.rand(2, count, 3, generator=rng) - 1)
    return 1 + factors, SHIFT * shifts


def stain_maps(factors: Tensor, shifts: Tensor) -> Tensor:
    """Affine maps (B, 4, 3) of optical density: stain amounts times `factors` plus `shifts`, (B, 3) each."""
    stains = torch.tensor(STAINS)
    return torch.cat([stains.inverse() @ torch.diag_embed(factors) @ stains, (shifts @ stains)[:, None]], 1)


def restain(patches: Tensor, maps: Tensor) -> Tensor:
    """Patches uint8 (B, H, W, 3) with the optical density of their pixels mapped by `maps` (B, 4, 3)."""
    density = torch.baddbmm(maps[:, 3:], _optical_density(patches).flatten(1, 2), maps[:, :3])
    return density.neg_().exp_().mul_(255).round_().clamp_(0, 255).byte().view_as(patches)


def stain_amounts(patches: Tensor) -> Tensor:
    """Amounts of haematoxylin, eosin and DAB in each pixel: uint8 (B, H, W, 3) -> float (B, H, W, 3)."""
    return _optical_density(patches) @ torch.tensor(STAINS, device=patches.device).inverse()


def _optical_density(patches: Tensor) -> Tensor:
    return _density_levels(patches.device).index_select(0, patches.reshape(-1).int()).view(patches.shape)


@cache
def _density_levels(device: torch.device) -> Tensor:
    """Optical density of each of the 256 levels, kept on the device."""
    with torch.inference_mode(False):
        return torch.arange(256, device=device).clamp_min(MIN_LEVEL).div(255).log().neg()
