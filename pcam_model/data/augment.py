"""The recipe's augmentation (fastai's `aug_transforms`), for a whole batch at once, in one bilinear sample.

Dihedral symmetry, zoom, rotation and perspective warp are one homography a patch; the resize is part of its grid.
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
MAX_DEGREES = 10.0
MAX_ZOOM = 1.1
MAX_WARP = 0.2
BRIGHTNESS = (0.4, 0.6)
CONTRAST = (0.8, 1.25)
LEVELS = 256

PixelFunction = Callable[[Tensor], Tensor]


def _identity(images: Tensor) -> Tensor:
    return images


@dataclass(frozen=True)
class ViewConfig:
    """Image size and augmentations of a training step.

    Attributes:
        image_size: height and width of the images, in pixels.
        no_warp: only the 8 symmetries of the square, which resample no pixel: images as sharp as at inference.
        stain_jitter: strength of the stain jitter; 0: none.
    """

    image_size: int
    no_warp: bool = False
    stain_jitter: float = 0.0


def augment(
    patches: Tensor,
    view_config: ViewConfig,
    rng: torch.Generator,
    pixel_function: PixelFunction = _identity,
    batch_slice: BatchSlice | None = None,
) -> Tensor:
    """Training images from patches; each image's transform is drawn from `rng`, on the host.

    Brightness and contrast come before the resampling: a patch has 256 levels a channel, so that one small lookup table
    a patch applies them.

    Args:
        patches: uint8 (B, H, W, 3), 0..255.
        view_config: image size and augmentations.
        rng: source of the random numbers; the result depends on nothing else.
        pixel_function: applied to every pixel last, each channel by itself: float (B, 3, H, W) in 0..1 -> same shape.
        batch_slice: which rows of a batch the patches are; all of it by default.

    Returns:
        float32 (B, 3, image_size, image_size), in 0..1 before `pixel_function`.
    """
    batch_slice, device = batch_slice or BatchSlice(0, len(patches), len(patches)), patches.device
    draw_maps = symmetries if view_config.no_warp else homographies
    parameters = (draw_maps(batch_slice.batch_size, rng), *lighting(batch_slice.batch_size, rng))
    maps, brightness, contrast = (batch_slice.of(drawn).to(device, non_blocking=True) for drawn in parameters)
    if view_config.stain_jitter:
        patches = jitter(patches, view_config.stain_jitter, rng, batch_slice)
    levels = torch.linspace(0, 1, LEVELS, device=device).expand(len(patches), 3, 1, LEVELS)
    images = apply_table(patches, pixel_function(relight(levels, brightness, contrast)))
    grid = sampling_grid(maps, view_config.image_size)
    return functional.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)


def apply_table(patches: Tensor, table: Tensor) -> Tensor:
    """Each patch's pixels through its own lookup table: uint8 (B, H, W, 3), (B, 3, 1, 256) -> (B, 3, H, W)."""
    count, height, width, channels = patches.shape
    tables = torch.arange(count * channels, dtype=torch.int32, device=patches.device).view(count, channels, 1, 1)
    indices = patches.permute(0, 3, 1, 2).contiguous() + tables * LEVELS
    return table.reshape(-1).index_select(0, indices.view(-1)).view(count, channels, height, width)


def homographies(count: int, rng: torch.Generator) -> Tensor:
    """float32 (count, 3, 3): from output to input coordinates, both in -1..1."""
    return symmetries(count, rng) @ zooms(count, rng) @ rotations(count, rng) @ warps(count, rng)


def symmetries(count: int, rng: torch.Generator) -> Tensor:
    """One of the 8 symmetries of the square for each, (count, 3, 3)."""
    flip_x, flip_y, swap = torch.randint(2, (3, count), generator=rng).float()
    zero = torch.zeros(count)
    sign_x, sign_y = 1 - 2 * flip_x, 1 - 2 * flip_y
    return _matrix(
        [sign_x * (1 - swap), sign_x * swap, zero],
        [sign_y * swap, sign_y * (1 - swap), zero],
        [zero, zero, zero + 1],
    )


def zooms(count: int, rng: torch.Generator) -> Tensor:
    """Zooms by 1.0 to 1.1 about a random centre, (count, 3, 3)."""
    scale = 1 / (1 + (MAX_ZOOM - 1) * _uniform(count, rng) * _applied(count, rng))
    left, top = (1 - scale) * (2 * _uniform(count, rng) - 1), (1 - scale) * (2 * _uniform(count, rng) - 1)
    zero = torch.zeros(count)
    return _matrix([scale, zero, left], [zero, scale, top], [zero, zero, zero + 1])


def rotations(count: int, rng: torch.Generator) -> Tensor:
    """Rotations by up to 10 degrees either way, (count, 3, 3)."""
    angle = math.radians(MAX_DEGREES) * (2 * _uniform(count, rng) - 1) * _applied(count, rng)
    zero = torch.zeros(count)
    return _matrix(
        [angle.cos(), -angle.sin(), zero],
        [angle.sin(), angle.cos(), zero],
        [zero, zero, zero + 1],
    )


def warps(count: int, rng: torch.Generator) -> Tensor:
    """Perspective warps, horizontal and vertical, (count, 3, 3).

    The keystone that carries the left edge to 1 + t of its length and the right one to 1 - t, in closed form.
    """
    zero = torch.zeros(count)
    t, u = (MAX_WARP * (2 * _uniform(count, rng) - 1) * _applied(count, rng) for _ in range(2))
    horizontal = _matrix([zero + 1, zero, t], [zero, 1 - t**2, zero], [t, zero, zero + 1])
    vertical = _matrix([1 - u**2, zero, zero], [zero, zero + 1, u], [zero, u, zero + 1])
    return horizontal @ vertical


def sampling_grid(maps: Tensor, image_size: int) -> Tensor:
    """Input coordinates of each output pixel, float (B, S, S, 2), for `grid_sample`."""
    centres = (torch.arange(image_size, device=maps.device) * 2 + 1) / image_size - 1
    across, down, fixed = maps.view(-1, 3, 3, 1, 1).unbind(2)
    u, v, w = (across * centres + (down * centres[:, None] + fixed)).unbind(1)
    grid = torch.empty(*w.shape, 2, device=maps.device)
    torch.div(u, w, out=grid[..., 0])
    torch.div(v, w, out=grid[..., 1])
    return grid


def lighting(count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Brightness (a shift) and contrast (a factor) in logit space, (count,) each."""
    low, high = BRIGHTNESS
    level = _uniform(count, rng) * (high - low) + low
    brightness = torch.logit(level) * _applied(count, rng)
    low, high = math.log(CONTRAST[0]), math.log(CONTRAST[1])
    contrast = torch.exp((_uniform(count, rng) * (high - low) + low) * _applied(count, rng))
    return brightness, contrast


def relight(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Images (B, 3, H, W) in 0..1, plus `brightness` (B,) and times `contrast` (B,) in logit space."""
    shift, factor = brightness.view(-1, 1, 1, 1), contrast.view(-1, 1, 1, 1)
    return torch.sigmoid((torch.logit(images, eps=1e-3) + shift) * factor)


def _uniform(count: int, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng)


def _applied(count: int, rng: torch.Generator) -> Tensor:
    """1 where an image is transformed, 0 where it is left as it is, (count,)."""
    return (_uniform(count, rng) < PROBABILITY).float()


def _matrix(*rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
