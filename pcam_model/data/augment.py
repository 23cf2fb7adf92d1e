"""The recipe's augmentation (fastai's `aug_transforms`), for a whole batch at once, in one bilinear sample.

Dihedral symmetry, zoom, rotation and perspective warp are one homography a patch; the resize is part of its grid.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from pcam_model.core.rng import BatchSlice
from pcam_model.data.stain import draw_stain_maps, restain

PROBABILITY = 0.75
MAX_DEGREES = 10.0
MAX_ZOOM = 1.1
MAX_WARP = 0.2
BRIGHTNESS = (0.4, 0.6)
CONTRAST = (0.8, 1.25)
LEVELS = 256
LOGIT_EPS = 1e-3

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


class AugmentParameters(NamedTuple):
    """The random transforms of a batch, one a patch, on the host or on a device."""

    maps: Tensor
    """float32 (B, 3, 3): homographies from output to input coordinates, both in -1..1."""
    brightness: Tensor
    """float32 (B,): a shift in logit space."""
    contrast: Tensor
    """float32 (B,): a factor in logit space."""
    stain_maps: Tensor
    """float32 (B, 4, 3): see `draw_stain_maps`; (0, 4, 3) without stain jitter."""

    def rows(self, rows: slice) -> "AugmentParameters":
        """Those of some of the patches."""
        return AugmentParameters(*(values[rows] for values in self))


def draw_augmentation(view_config: ViewConfig, rng: torch.Generator, batch_slice: BatchSlice) -> AugmentParameters:
    """Draw the transforms of a batch on the host, and keep those of a slice; they depend on nothing but `rng`."""
    count, draw_maps = batch_slice.batch_size, symmetries if view_config.no_warp else homographies
    maps, (brightness, contrast) = draw_maps(count, rng), lighting(count, rng)
    maps, brightness, contrast = (batch_slice.of(values) for values in (maps, brightness, contrast))
    return AugmentParameters(maps, brightness, contrast, draw_stain_maps(view_config.stain_jitter, rng, batch_slice))


def augment(
    patches: Tensor, parameters: AugmentParameters, image_size: int, pixel_function: PixelFunction = _identity
) -> Tensor:
    """Training images from patches, each with its own transform.

    Brightness and contrast come before the resampling: a patch has 256 levels a channel, so that one small lookup table
    a patch applies them.

    Args:
        patches: uint8 (B, H, W, 3), 0..255.
        parameters: of the B patches, on their device.
        image_size: height and width of the images, in pixels.
        pixel_function: applied to every pixel last, each channel by itself: float (B, 3, H, W) in 0..1 -> same shape.

    Returns:
        float32 (B, 3, image_size, image_size), in 0..1 before `pixel_function`.
    """
    if len(parameters.stain_maps):
        patches = restain(patches, parameters.stain_maps)
    levels = _logit_levels(patches.device).expand(len(patches), 3, 1, LEVELS)
    images = apply_table(patches, pixel_function(_relight_logits(levels, parameters.brightness, parameters.contrast)))
    grid = sampling_grid(parameters.maps, image_size)
    return functional.grid_sample(images, grid, "bilinear", "reflection", align_corners=False)


def apply_table(patches: Tensor, table: Tensor) -> Tensor:
    """Each patch's pixels through its own lookup table: uint8 (B, H, W, 3), (B, 3, 1, 256) -> (B, 3, H, W)."""
    count, height, width, channels = patches.shape
    indices = patches.permute(0, 3, 1, 2).contiguous() + _table_offsets(count, channels, patches.device)
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
    centres = _pixel_centres(image_size, maps.device)
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
    return _relight_logits(torch.logit(images, eps=LOGIT_EPS), brightness, contrast)


def _relight_logits(logits: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    shift, factor = brightness.view(-1, 1, 1, 1), contrast.view(-1, 1, 1, 1)
    return torch.sigmoid((logits + shift) * factor)


# Constants stay on the device: at each step they would be several launches more.


@cache
def _logit_levels(device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        levels = torch.linspace(0, 1, LEVELS, device=device).expand(1, 3, 1, LEVELS)
        return torch.logit(levels, eps=LOGIT_EPS)[0, 0, 0]  # of a plain vector, other instructions give other last bits


@cache
def _table_offsets(count: int, channels: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.arange(count * channels, dtype=torch.int32, device=device).view(count, channels, 1, 1) * LEVELS


@cache
def _pixel_centres(image_size: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return (torch.arange(image_size, device=device) * 2 + 1) / image_size - 1


def _uniform(count: int, rng: torch.Generator) -> Tensor:
    return torch.rand(count, generator=rng)


def _applied(count: int, rng: torch.Generator) -> Tensor:
    """1 where an image is transformed, 0 where it is left as it is, (count,)."""
    return (_uniform(count, rng) < PROBABILITY).float()


def _matrix(*rows: list[Tensor]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
