"""The recipe's augmentation (fastai's `aug_transforms`), for a whole batch at once, in one bilinear sample.

Symmetry of the square, zoom, rotation and warp are one homography a patch; the resize is folded into its grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pcam_model.core.rng import BatchSlice
from pcam_model.data.stain import jitter

PROBABILITY = 0.75
DEGREES = 10.0
ZOOM = 1.1
WARP = 0.2
BRIGHTNESS = (0.4, 0.6)
CONTRAST = (0.8, 1.25)
LEVELS = 256

Finish = Callable[[Tensor], Tensor]


def _as_it_is(images: Tensor) -> Tensor:
    return images


@dataclass(frozen=True)
class ViewConfig:
    """How training sees its patches at a step.

    Attributes:
        size: the side of the images, in pixels.
        calm: only the symmetries of the square, which resample no pixel: images as sharp as they will be seen.
        stain: strength of the stain jitter; 0: none.
    """

    size: int
    no_warp_fraction: bool = False
    stain: float = 0.0


def augment(
    patches: Tensor,
    view_config: ViewConfig,
    draw: torch.Generator,
    finish: Finish = _as_it_is,
    share: BatchSlice | None = None,
) -> Tensor:
    """Training images from patches; each image's change is drawn from `draw`, on the host.

    Light comes before the sample: a patch has 256 levels a channel, so that one small table a patch does it.

    Args:
        patches: uint8 (B, H, W, 3), 0..255.
        sight: how they are seen.
        draw: where the randomness comes from; the result depends on nothing else.
        finish: done to every pixel last, each channel by itself: float (B, 3, H, W) in 0..1 -> the same shape.
        share: which rows of a batch the patches are; all of it by default.

    Returns:
        float32 (B, 3, size, size), in 0..1 before `finish`.
    """
    share, device = share or BatchSlice(0, len(patches), len(patches)), patches.device
    drawn = (
        (symmetries if view_config.no_warp_fraction else homographies)(share.whole, draw),
        *lighting(share.whole, draw),
    )
    maps, brightness, contrast = (share.of(part).to(device, non_blocking=True) for part in drawn)
    if view_config.stain:
        patches = jitter(patches, view_config.stain, draw, share)
    levels = torch.linspace(0, 1, LEVELS, device=device).expand(len(patches), 3, 1, LEVELS)
    images = looked_up(patches, finish(relight(levels, brightness, contrast)))
    return functional.grid_sample(images, grid(maps, view_config.size), "bilinear", "reflection", align_corners=False)


def looked_up(patches: Tensor, table: Tensor) -> Tensor:
    """Each patch's pixels through its own table: uint8 (B, H, W, 3), (B, 3, 1, 256) -> (B, 3, H, W)."""
    count, height, width, channels = patches.shape
    rows = torch.arange(count * channels, dtype=torch.int32, device=patches.device).view(count, channels, 1, 1)
    places = patches.permute(0, 3, 1, 2).contiguous() + rows * LEVELS
    return table.reshape(-1).index_select(0, places.view(-1)).view(count, channels, height, width)


def homographies(count: int, draw: torch.Generator) -> Tensor:
    """float32 (count, 3, 3): from output to input coordinates, both in -1..1."""
    return symmetries(count, draw) @ zooms(count, draw) @ rotations(count, draw) @ warps(count, draw)


def symmetries(count: int, draw: torch.Generator) -> Tensor:
    """One of the 8 symmetries of the square each, (count, 3, 3)."""
    flip_x, flip_y, swap = torch.randint(2, (3, count), generator=draw).float()
    zero = torch.zeros(count)
    sign_x, sign_y = 1 - 2 * flip_x, 1 - 2 * flip_y
    return _matrix(
        [sign_x * (1 - swap), sign_x * swap, zero],
        [sign_y * swap, sign_y * (1 - swap), zero],
        [zero, zero, zero + 1],
    )


def zooms(count: int, draw: torch.Generator) -> Tensor:
    """Magnified 1.0 to 1.1 times about a random centre, (count, 3, 3)."""
    scale = 1 / (1 + (ZOOM - 1) * _uniform(count, draw) * _chosen(count, draw))
    left, top = (1 - scale) * (2 * _uniform(count, draw) - 1), (1 - scale) * (2 * _uniform(count, draw) - 1)
    zero = torch.zeros(count)
    return _matrix([scale, zero, left], [zero, scale, top], [zero, zero, zero + 1])


def rotations(count: int, draw: torch.Generator) -> Tensor:
    """Turned by up to 10 degrees either way, (count, 3, 3)."""
    angle = math.radians(DEGREES) * (2 * _uniform(count, draw) - 1) * _chosen(count, draw)
    zero = torch.zeros(count)
    return _matrix(
        [angle.cos(), -angle.sin(), zero],
        [angle.sin(), angle.cos(), zero],
        [zero, zero, zero + 1],
    )


def warps(count: int, draw: torch.Generator) -> Tensor:
    """Seen from a side and from above or below, (count, 3, 3).

    The keystone that carries the left edge to 1 + t of its length and the right one to 1 - t, in closed form.
    """
    zero = torch.zeros(count)
    t, u = (WARP * (2 * _uniform(count, draw) - 1) * _chosen(count, draw) for _ in range(2))
    sideways = _matrix([zero + 1, zero, t], [zero, 1 - t**2, zero], [t, zero, zero + 1])
    upwards = _matrix([1 - u**2, zero, zero], [zero, zero + 1, u], [zero, u, zero + 1])
    return sideways @ upwards


def grid(maps: Tensor, size: int) -> Tensor:
    """Where each of size x size output pixels looks, float (B, size, size, 2) as `grid_sample` wants it."""
    centres = (torch.arange(size, device=maps.device) * 2 + 1) / size - 1
    across, down, fixed = maps.view(-1, 3, 3, 1, 1).unbind(2)
    u, v, w = (across * centres + (down * centres[:, None] + fixed)).unbind(1)
    places = torch.empty(*w.shape, 2, device=maps.device)
    torch.div(u, w, out=places[..., 0])
    torch.div(v, w, out=places[..., 1])
    return places


def lighting(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Brightness (a shift) and contrast (a factor) in logit space, (count,) each."""
    low, high = BRIGHTNESS
    chance = _uniform(count, draw) * (high - low) + low
    brightness = torch.logit(chance) * _chosen(count, draw)
    low, high = math.log(CONTRAST[0]), math.log(CONTRAST[1])
    contrast = torch.exp((_uniform(count, draw) * (high - low) + low) * _chosen(count, draw))
    return brightness, contrast


def relight(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Images (B, 3, H, W) in 0..1, shifted by `brightness` (B,) and stretched by `contrast` (B,) in logit space."""
    shift, factor = brightness.view(-1, 1, 1, 1), contrast.view(-1, 1, 1, 1)
    return torch.sigmoid((torch.logit(images, eps=1e-3) + shift) * factor)


def _uniform(count: int, draw: torch.Generator) -> Tensor:
    return torch.rand(count, generator=draw)


def _chosen(count: int, draw: torch.Generator) -> Tensor:
    return (_uniform(count, draw) < PROBABILITY).float()


def _matrix(*rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
