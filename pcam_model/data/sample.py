"""Generated patches that look like haematoxylin and eosin, for a run without a download.

The label is decided by the centre 32x32 alone: 1 where there are tumour cells in it. Tumour cells outside the centre
are distractors in both classes, and every slide has a stain of its own, so that colour alone does not give the label
away.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.data.image import CENTRE_SIZE, PATCH_SIZE
from pcam_model.data.patch_source import PatchSource

VERSION = 1
SLIDES = 24
# Small samples too have all three splits: a valid and a test slide are among the first seven.
ORIGINS = ["train", "train", "train", "valid", "train", "train", "test"] + ["train"] * 4
ORIGINS += ["valid", "train", "train", "test", "train", "train", "valid", "train", "train", "test", "train", "valid"]
ORIGINS += ["train"]
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.09, 0.95, 0.28], np.float32)

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Stain:
    """A slide's dyes as absorptions (3,) of red, green and blue, and the density of its cells."""

    haematoxylin: Field
    eosin: Field
    cell_density: float


class SamplePatches(PatchSource):
    """`count` generated patches; each is a function of (seed, index) alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.seed = seed
        self.stains = [slide_stain(seed, slide) for slide in range(SLIDES)]
        index = np.arange(count)
        slides = index % SLIDES
        self.table = pd.DataFrame(
            {
                "id": [f"sample{i:06d}" for i in index],
                "label": pd.array(label_of(index), dtype="Int8"),
                "slide": [f"slide{s:02d}" for s in slides],
                "origin": [ORIGINS[s] for s in slides],
            }
        )

    def close(self) -> None:
        """Do nothing: no file is open."""

    def patch(self, row: int) -> NDArray[np.uint8]:
        """The patch in this row: uint8 (96, 96, 3)."""
        return draw_patch(self.seed, row, self.stains[row % SLIDES])


def label_of(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels (N,): half of each slide's patches are tumour, whatever the count."""
    labels: NDArray[np.int64] = (index + index // SLIDES) % 2
    return labels


def slide_stain(seed: int, slide: int) -> Stain:
    """A random stain for a slide, as laboratories dye, cut and scan differently."""
    random = np.random.default_rng([seed, 1, slide])
    haematoxylin = HAEMATOXYLIN * random.uniform(0.7, 1.25) + random.normal(0, 0.04, 3)
    eosin = EOSIN * random.uniform(0.55, 1.2) + random.normal(0, 0.04, 3)
    return Stain(haematoxylin.astype(np.float32), eosin.astype(np.float32), float(random.uniform(0.6, 1.4)))


def draw_patch(seed: int, index: int, stain: Stain) -> NDArray[np.uint8]:
    """One patch, uint8 (96, 96, 3): tissue, lymphocytes, other nuclei, and tumour cells."""
    random = np.random.default_rng([seed, 2, index])
    label = int(label_of(np.array([index]))[0])
    nuclei = np.zeros((PATCH_SIZE, PATCH_SIZE), np.float32)
    tissue = draw_stroma(random)
    for y, x in scattered_positions(random, int(stain.cell_density * random.integers(25, 95))):
        add_nucleus(nuclei, random, y, x, random.uniform(2.0, 3.6), random.uniform(0.9, 1.5), False)
    for y, x in scattered_positions(random, int(random.integers(0, 9))):
        add_nucleus(nuclei, random, y, x, random.uniform(3.6, 5.4), random.uniform(0.6, 1.0), False)
    for y, x in tumour_positions(random, label):
        clear_around(nuclei, y, x, 7.0)
        add_nucleus(nuclei, random, y, x, random.uniform(3.8, 6.2), random.uniform(0.55, 1.05), True)
    return render(random, stain, nuclei, tissue)


def scattered_positions(random: np.random.Generator, count: int) -> Field:
    """Random positions (count, 2) all over the patch and a little beyond its edges."""
    return random.uniform(-3, PATCH_SIZE + 3, (count, 2)).astype(np.float32)


def tumour_positions(random: np.random.Generator, label: int) -> list[tuple[float, float]]:
    """Positions of tumour cells: in the centre where the label is 1, and in part of both classes outside it."""
    low, high = (PATCH_SIZE - CENTRE_SIZE) / 2 + 3, (PATCH_SIZE + CENTRE_SIZE) / 2 - 3
    centre = random.uniform(low, high, (int(random.integers(1, 7)), 2)) if label else np.empty((0, 2))
    positions = [(float(y), float(x)) for y, x in centre]
    if random.random() < (0.5 if label else 0.4):
        positions += distractor_positions(random, int(random.integers(3, 14)))
    return positions


def distractor_positions(random: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Positions around one point, none nearer than a large nucleus to the centre 32x32."""
    middle = random.uniform(0, PATCH_SIZE, 2)
    near = middle + random.normal(0, 18, (count * 4, 2))
    distance = np.abs(near - (PATCH_SIZE - 1) / 2).max(axis=1)
    outside = near[(distance > CENTRE_SIZE / 2 + 9) & (distance < PATCH_SIZE / 2)][:count]
    return [(float(y), float(x)) for y, x in outside]


def window(y: float, x: float, reach: float) -> tuple[slice, slice, Field, Field] | None:
    """Rows and columns of the pixels around a position, and their distances from it; None outside the patch."""
    top, left = max(int(y - reach), 0), max(int(x - reach), 0)
    bottom, right = min(int(y + reach) + 1, PATCH_SIZE), min(int(x + reach) + 1, PATCH_SIZE)
    if top >= bottom or left >= right:
        return None
    rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    columns = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
    return slice(top, bottom), slice(left, right), rows, columns


def clear_around(nuclei: Field, y: float, x: float, reach: float) -> None:
    """Fade the nuclei around a position, as a tumour cell pushes its neighbours aside."""
    if pixels := window(y, x, reach):
        rows, columns, dy, dx = pixels
        nuclei[rows, columns] *= np.minimum((dy**2 + dx**2) / reach**2, 1)


def add_nucleus(
    nuclei: Field, random: np.random.Generator, y: float, x: float, radius: float, depth: float, tumour: bool
) -> None:
    """Add an ellipse with a soft edge; a tumour's is irregular, pale inside and has a nucleolus."""
    pixels = window(y, x, radius * 1.7)
    if pixels is None:
        return
    rows, columns, dy, dx = pixels
    turn, stretch, bump = random.uniform(0, np.pi), random.uniform(0.62 if tumour else 0.8, 1.0), random.uniform(0, 6.3)
    along = dx * np.cos(turn) + dy * np.sin(turn)
    across = (dy * np.cos(turn) - dx * np.sin(turn)) / stretch
    distance = np.sqrt(along**2 + across**2) / radius
    if tumour:
        distance = distance * (1 + 0.14 * np.cos(3 * np.arctan2(across, along) + bump))
    body = np.clip((1 - distance) * radius / 1.3 + 0.5, 0, 1) * depth
    if tumour:
        body *= 0.55 + 0.45 * np.clip(distance, 0, 1) ** 3
        body += depth * 0.9 * np.exp(-((along - 0.8) ** 2 + across**2) / 1.2)
    nuclei[rows, columns] = np.maximum(nuclei[rows, columns], body)


def interpolation_matrix(coarse: int) -> Field:
    """A matrix (96, coarse) that interpolates `coarse` values smoothly to the patch's pixels."""
    position = np.linspace(0, coarse - 1, PATCH_SIZE, dtype=np.float32)
    weight = np.maximum(1 - np.abs(position[:, None] - np.arange(coarse, dtype=np.float32)), 0)
    smooth: Field = weight**2 * (3 - 2 * weight)
    return smooth


NOISE_OCTAVES = [(0.30, interpolation_matrix(5)), (0.16, interpolation_matrix(14)), (0.10, interpolation_matrix(40))]


def draw_stroma(random: np.random.Generator) -> Field:
    """Tissue with gaps and bent fibres: (96, 96), about 0.06 to 1.3."""
    field = np.full((PATCH_SIZE, PATCH_SIZE), random.uniform(0.4, 0.75), np.float32)
    for strength, matrix in NOISE_OCTAVES:
        field += strength * (matrix @ random.normal(0, 1, (matrix.shape[1],) * 2).astype(np.float32) @ matrix.T)
    turn, pitch = random.uniform(0, np.pi), random.uniform(25, 60)
    grid = np.arange(PATCH_SIZE, dtype=np.float32) / PATCH_SIZE
    along = grid[None, :] * np.cos(turn) + grid[:, None] * np.sin(turn)
    field += random.uniform(0, 0.16) * np.sin(pitch * along + 5 * field)
    tissue: Field = np.clip(field, 0.06, 1.3)
    return tissue


def render(random: np.random.Generator, stain: Stain, nuclei: Field, tissue: Field) -> NDArray[np.uint8]:
    """The image, uint8 (96, 96, 3): dyes absorb light exponentially (Beer and Lambert), the scanner adds noise."""
    grain = random.normal(0, 0.09, (PATCH_SIZE, PATCH_SIZE)).astype(np.float32)
    blue = np.maximum(nuclei * (1 + grain) + 0.10 * tissue, 0)[..., None]
    pink = np.maximum(tissue * (1 - 0.5 * np.minimum(nuclei, 1)) + 0.5 * grain, 0)[..., None]
    light = np.exp(-(blue * stain.haematoxylin + pink * stain.eosin * 0.7))
    noise = random.normal(0, 0.012, (PATCH_SIZE, PATCH_SIZE, 1)).astype(np.float32)
    return np.clip((light * random.uniform(0.93, 1.0) + noise) * 255, 0, 255).astype(np.uint8)
