"""Slides composed of real patches of known label, of any size: tiled, JPEG-compressed TIFFs with a pyramid.

    python -m benchmarks.compose_slide PATCHES SLIDE.tif [--width 25000] [--height 50000] [--tissue 0.12]

Needs `pip install imagecodecs`. PATCHES is a Kaggle archive with its labels. Tissue is ellipses of patches without
tumour, with nests of tumour in them.
"""

import argparse
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pcam_model.data.image_inputs import Images

SIZE, TILE, MPP = 96, 480, 0.972
FACTORS = (1, 4, 16)
GLASS = -1
Patches = NDArray[np.uint8]
Layout = NDArray[np.int64]


def lay_out(labels: NDArray[np.int64], width: int, height: int, tissue: float, seed: int = 0) -> Layout:
    """Which patch lies in each square of 96 pixels of a slide, -1 for glass: (rows, columns).

    Args:
        labels: of the patches, 0 or 1.
        width: of the slide, in pixels; so is the height.
        tissue: share of the slide that is tissue.
        seed: of the places and of the patches drawn.
    """
    draw = np.random.default_rng(seed)
    rows, columns = height // SIZE, width // SIZE
    y, x = np.mgrid[:rows, :columns]
    inside, tumour = np.zeros((rows, columns), bool), np.zeros((rows, columns), bool)
    for _ in range(1000):
        if inside.mean() >= tissue:
            break
        radii = np.sqrt(rows * columns * tissue / 3 / np.pi) * draw.uniform(0.7, 1.4, 2)
        centre = draw.uniform(radii, np.maximum([rows, columns] - radii, radii + 1))
        inside |= ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1
        nest, spot = radii * draw.uniform(0.15, 0.4), centre + radii * draw.uniform(-0.4, 0.4, 2)
        tumour |= ((y - spot[0]) / nest[0]) ** 2 + ((x - spot[1]) / nest[1]) ** 2 < 1
    layout = np.full((rows, columns), GLASS)
    for label, where in ((0, inside & ~tumour), (1, inside & tumour)):
        layout[where] = draw.choice(np.flatnonzero(labels == label), int(where.sum()))
    return layout


def read_patches(archive: Path) -> tuple[Patches, NDArray[np.int64]]:
    """All patches (N, 96, 96, 3) of a Kaggle archive, and their labels (N,)."""
    images = Images([archive])
    with zipfile.ZipFile(archive) as content, content.open("train_labels.csv") as table:
        labels = pd.read_csv(table, dtype={"id": str}).set_index("id")["label"]
    ids = [images.name(row).id for row in range(len(images))]
    return np.stack([images.patch(row) for row in range(len(images))]), labels[ids].to_numpy(np.int64)


def write_slide(path: Path, patches: Patches, layout: Layout) -> None:
    """Write a slide of patches (N, 96, 96, 3) at 0.972 microns per pixel; memory does not grow with its size."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, factor in enumerate(FACTORS):
            small = np.stack([np.asarray(Image.fromarray(patch).reduce(factor)) for patch in patches])
            cell = SIZE // factor
            shape = (layout.shape[0] * cell, layout.shape[1] * cell, 3)
            if min(shape[:2]) < 1:
                break
            file.write(
                _tiles(small, layout, TILE // cell), shape=shape, dtype=np.uint8, tile=(TILE, TILE),
                photometric="ycbcr", compression="jpeg", subsampling=(2, 2), subfiletype=int(level > 0),
                metadata=None, resolution=(1e4 / MPP / factor,) * 2, resolutionunit="CENTIMETER",
            )  # fmt: skip


def _tiles(patches: Patches, layout: Layout, cells: int) -> Iterator[bytes]:
    """The tiles of a level as JPEG, each of `cells` x `cells` patches."""
    rows, columns = (-(-length // cells) * cells for length in layout.shape)
    padded = np.full((rows, columns), GLASS)
    padded[: layout.shape[0], : layout.shape[1]] = layout
    white = np.full_like(patches[:1], 255)
    glass = b""
    for top in range(0, rows, cells):
        for left in range(0, columns, cells):
            chosen = padded[top : top + cells, left : left + cells]
            if glass and (chosen == GLASS).all():
                yield glass
                continue
            side = patches.shape[1]
            squares = np.concatenate([patches, white])[chosen.ravel()].reshape(cells, cells, side, side, 3)
            content = io.BytesIO()
            Image.fromarray(squares.swapaxes(1, 2).reshape(TILE, TILE, 3)).save(content, "JPEG", quality=90)
            if (chosen == GLASS).all():
                glass = content.getvalue()
            yield content.getvalue()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patches", type=Path)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--width", type=int, default=25_000)
    parser.add_argument("--height", type=int, default=50_000)
    parser.add_argument("--tissue", type=float, default=0.12)
    parser.add_argument("--seed", type=int, default=0)
    args: Any = parser.parse_args()
    patches, labels = read_patches(args.patches)
    write_slide(args.slide, patches, lay_out(labels, args.width, args.height, args.tissue, args.seed))


if __name__ == "__main__":
    main()
