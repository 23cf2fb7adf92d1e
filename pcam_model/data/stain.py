"""Stain jitter: each patch as another laboratory might have stained it, for a whole batch at once.

Haematoxylin, eosin and DAB are unmixed (Ruifrok and Johnston 2001), each made stronger or weaker and shifted (Tellez et
al. 2018), and mixed again: one 3 x 3 matrix and one vector a patch, in optical density.
"""

import torch
from torch import Tensor

from pcam_model.core.rng import BatchSlice

STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
"""Optical density of red, green and blue in one unit of haematoxylin, eosin and DAB."""
SHIFT = 0.5  # of the strength, in natural optical density: unstained tissue is tinted too
MIN_LEVEL = 0.4  # of 255: where the density of black is cut off; it is rounded to black again


def jitter(patches: Tensor, strength: float, rng: torch.Generator, batch_slice: BatchSlice | None = None) -> Tensor:
    """Patches with each stain's amount times 1 +- strength, plus up to +- strength / 2; drawn on the host.

    Args:
        patches: uint8 (B, H, W, 3), 0..255.
        strength: 0.05 is light, 0.2 strong.
        rng: source of the random numbers.
        batch_slice: which rows of a batch the patches are; all of it by default.

    Returns:
        uint8 (B, H, W, 3).
    """
    batch_slice = batch_slice or BatchSlice(0, len(patches), len(patches))
    factors, shifts = (batch_slice.of(drawn) for drawn in draw_changes(batch_slice.batch_size, strength, rng))
    return restain(patches, factors, shifts)


def draw_changes(count: int, strength: float, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Factors and shifts of the three stains, (count, 3) each."""
    factors, shifts = strength * (2 * torch.rand(2, count, 3, generator=rng) - 1)
    return 1 + factors, SHIFT * shifts


def restain(patches: Tensor, factors: Tensor, shifts: Tensor) -> Tensor:
    """Patches (B, H, W, 3) with stain amounts times `factors` plus `shifts`, (B, 3) each, on the host."""
    stains = torch.tensor(STAINS)
    change, shift = stains.inverse() @ torch.diag_embed(factors) @ stains, (shifts @ stains)[:, None]
    change, shift = (each.to(patches.device, non_blocking=True) for each in (change, shift))
    density = torch.baddbmm(shift, _optical_density(patches).flatten(1, 2), change)
    return density.neg_().exp_().mul_(255).round_().clamp_(0, 255).byte().view_as(patches)


def stain_amounts(patches: Tensor) -> Tensor:
    """Amounts of haematoxylin, eosin and DAB in each pixel: uint8 (B, H, W, 3) -> float (B, H, W, 3)."""
    return _optical_density(patches) @ torch.tensor(STAINS, device=patches.device).inverse()


def _optical_density(patches: Tensor) -> Tensor:
    levels = torch.arange(256, device=patches.device).clamp_min(MIN_LEVEL).div(255).log().neg()
    return levels.index_select(0, patches.reshape(-1).int()).view(patches.shape)
