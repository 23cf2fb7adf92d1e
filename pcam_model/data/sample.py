"""Generated patches that look like haematoxylin and eosin, for trying the whole way without a download.

The label is decided by the centre 32x32 alone: 1 where tumour cells stand there. Tumour cells outside the centre are
distractors that both classes have, and every slide has a stain of its own, so colour alone does not tell the label.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

VERSION = 1
SIZE = 96
CENTRE = 32
SLIDES = 24
# Small samples too reach all three sides: a valid and a test slide stand among the first seven.
ORIGINS = ["train", "train", "train", "valid", "train", "train", "test"] + ["train"] * 4
ORIGINS += ["valid", "train", "train", "test", "train", "train", "valid", "train", "train", "test", "train", "valid"]
ORIGINS += ["train"]
HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
EOSIN = np.array([0.09, 0.95, 0.28], np.float32)

Field = NDArray[np.float32]


@dataclass(frozen=True)
class Stain:
    """What a slide has of its own: its dyes as (3,) absorptions, and how crowded its tissue is."""

    haematoxylin: Field
    eosin: Field
    crowd: float


class SamplePatches:
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
        """Nothing is held open."""

    def patch(self, row: int) -> NDArray[np.uint8]:
        """The patch in this row: uint8 (96, 96, 3)."""
        return draw(self.seed, row, self.stains[row % SLIDES])


def label_of(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Half of each slide's patches are tumour, whatever the count."""
    labels: NDArray[np.int64] = (index + index // SLIDES) % 2
    return labels


def slide_stain(seed: int, slide: int) -> Stain:
    """Laboratories dye, cut and scan differently."""
    random = np.random.default_rng([seed, 1, slide])
    haematoxylin = HAEMATOXYLIN * random.uniform(0.7, 1.25) + random.normal(0, 0.04, 3)
    eosin = EOSIN * random.uniform(0.55, 1.2) + random.normal(0, 0.04, 3)
    return Stain(haematoxylin.astype(np.float32), eosin.astype(np.float32), float(random.uniform(0.6, 1.4)))


def draw(seed: int, index: int, stain: Stain) -> NDArray[np.uint8]:
    """One patch, uint8 (96, 96, 3): tissue, then lymphocytes, then what the label and the distractors ask for."""
    random = np.random.default_rng([seed, 2, index])
    label = int(label_of(np.array([index]))[0])
    nuclei = np.zeros((SIZE, SIZE), np.float32)
    tissue = stroma(random)
    for y, x in scattered(random, int(stain.crowd * random.integers(25, 95))):
        cell(nuclei, random, y, x, random.uniform(2.0, 3.6), random.uniform(0.9, 1.5), False)
    for y, x in scattered(random, int(random.integers(0, 9))):
        cell(nuclei, random, y, x, random.uniform(3.6, 5.4), random.uniform(0.6, 1.0), False)
    for y, x in tumour_places(random, label):
        clear(nuclei, y, x, 7.0)
        cell(nuclei, random, y, x, random.uniform(3.8, 6.2), random.uniform(0.55, 1.05), True)
    return develop(random, stain, nuclei, tissue)


def scattered(random: np.random.Generator, count: int) -> Field:
    """Places (count, 2) all over the patch, a little beyond its rim."""
    return random.uniform(-3, SIZE + 3, (count, 2)).astype(np.float32)


def tumour_places(random: np.random.Generator, label: int) -> list[tuple[float, float]]:
    """A nest in the centre where the label is 1; in a share of both classes nests that stay clear of it."""
    low, high = (SIZE - CENTRE) / 2 + 3, (SIZE + CENTRE) / 2 - 3
    nest = random.uniform(low, high, (int(random.integers(1, 7)), 2)) if label else np.empty((0, 2))
    places = [(float(y), float(x)) for y, x in nest]
    if random.random() < (0.5 if label else 0.4):
        places += outside(random, int(random.integers(3, 14)))
    return places


def outside(random: np.random.Generator, count: int) -> list[tuple[float, float]]:
    """Places around one point, none nearer than a large nucleus to the centre 32x32."""
    middle = random.uniform(0, SIZE, 2)
    near = middle + random.normal(0, 18, (count * 4, 2))
    distance = np.abs(near - (SIZE - 1) / 2).max(axis=1)
    kept = near[(distance > CENTRE / 2 + 9) & (distance < SIZE / 2)][:count]
    return [(float(y), float(x)) for y, x in kept]


def window(y: float, x: float, reach: float) -> tuple[slice, slice, Field, Field] | None:
    """The pixels around a place, and their distances from it; None where all lie beyond the rim."""
    top, left = max(int(y - reach), 0), max(int(x - reach), 0)
    bottom, right = min(int(y + reach) + 1, SIZE), min(int(x + reach) + 1, SIZE)
    if top >= bottom or left >= right:
        return None
    rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y)
    columns = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x)
    return slice(top, bottom), slice(left, right), rows, columns


def clear(nuclei: Field, y: float, x: float, reach: float) -> None:
    """A tumour cell pushes its neighbours aside."""
    if found := window(y, x, reach):
        rows, columns, dy, dx = found
        nuclei[rows, columns] *= np.minimum((dy**2 + dx**2) / reach**2, 1)


def cell(
    nuclei: Field, random: np.random.Generator, y: float, x: float, radius: float, depth: float, tumour: bool
) -> None:
    """One nucleus: an ellipse with a soft rim; a tumour's is irregular, pale inside and has a nucleolus."""
    found = window(y, x, radius * 1.7)
    if found is None:
        return
    rows, columns, dy, dx = found
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


def between(coarse: int) -> Field:
    """A matrix (96, coarse) that spreads few values smoothly over the patch's pixels."""
    place = np.linspace(0, coarse - 1, SIZE, dtype=np.float32)
    weight = np.maximum(1 - np.abs(place[:, None] - np.arange(coarse, dtype=np.float32)), 0)
    smooth: Field = weight**2 * (3 - 2 * weight)
    return smooth


CLOUDS = [(0.30, between(5)), (0.16, between(14)), (0.10, between(40))]


def stroma(random: np.random.Generator) -> Field:
    """Tissue with gaps and bent fibres: (96, 96), about 0.06 to 1.3."""
    field = np.full((SIZE, SIZE), random.uniform(0.4, 0.75), np.float32)
    for strength, spread in CLOUDS:
        field += strength * (spread @ random.normal(0, 1, (spread.shape[1],) * 2).astype(np.float32) @ spread.T)
    turn, pitch = random.uniform(0, np.pi), random.uniform(25, 60)
    grid = np.arange(SIZE, dtype=np.float32) / SIZE
    along = grid[None, :] * np.cos(turn) + grid[:, None] * np.sin(turn)
    field += random.uniform(0, 0.16) * np.sin(pitch * along + 5 * field)
    tissue: Field = np.clip(field, 0.06, 1.3)
    return tissue


def develop(random: np.random.Generator, stain: Stain, nuclei: Field, tissue: Field) -> NDArray[np.uint8]:
    """Dyes take light away exponentially (Beer and Lambert); the scanner adds noise. Gives uint8 (96, 96, 3)."""
    grain = random.normal(0, 0.09, (SIZE, SIZE)).astype(np.float32)
    blue = np.maximum(nuclei * (1 + grain) + 0.10 * tissue, 0)[..., None]
    pink = np.maximum(tissue * (1 - 0.5 * np.minimum(nuclei, 1)) + 0.5 * grain, 0)[..., None]
    light = np.exp(-(blue * stain.haematoxylin + pink * stain.eosin * 0.7))
    noise = random.normal(0, 0.012, (SIZE, SIZE, 1)).astype(np.float32)
    return np.clip((light * random.uniform(0.93, 1.0) + noise) * 255, 0, 255).astype(np.uint8)
