"""Pieces of tissue that several patches show: patches cut from one slide may overlap."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Codes = NDArray[np.int64]
# PCam's patches lie on a grid of 32 pixels, and so do the tiles that two of them share. JPEG smears colours over the
# edges of its blocks, so a margin is left out; the rest of a shared tile is the same to the bit.
TILE, MARGIN = 32, 2
# A patch that a tile is cut from lies in one of 3 x 3 positions around it: what more patches have is a pattern.
MAX_PATCHES = 9
MIN_CONTRAST = 48  # of 255, within a tile: a flat one may be anywhere


def tile_digests(patches: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Digests (N, 9) of the tiles of patches uint8 (N, 96, 96, 3); 0 for a tile without contrast."""
    return np.array([[_digest(tile) for tile in _tiles(patch)] for patch in patches], np.uint64).reshape(-1, 9)


def _tiles(patch: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    for top in range(0, len(patch), TILE):
        for left in range(0, len(patch), TILE):
            yield patch[top + MARGIN : top + TILE - MARGIN, left + MARGIN : left + TILE - MARGIN]


def _digest(tile: NDArray[np.uint8]) -> int:
    if int(tile.max()) - int(tile.min()) < MIN_CONTRAST:
        return 0
    return int.from_bytes(hashlib.blake2b(tile.tobytes(), digest_size=8).digest(), "little")


def tissue_pieces(digests: NDArray[np.uint64], pixels: Codes) -> Codes:
    """The piece of tissue (N,) of each patch: patches with a tile in common, and those in common with these, are one.

    Args:
        digests: of the patches' tiles (N, 9), 0 where a tile has no contrast.
        pixels: a number (N,) for each different image; repeats are one piece too.
    """
    flat = digests.ravel()
    patches = np.repeat(pixels, digests.shape[1])[flat != 0]
    tiles = np.asarray(pd.factorize(flat[flat != 0])[0], np.int64)
    pairs = np.unique(np.stack([patches, tiles], 1), axis=0)
    counts = np.bincount(pairs[:, 1], minlength=1)
    pairs = pairs[(counts[pairs[:, 1]] > 1) & (counts[pairs[:, 1]] <= MAX_PATCHES)]
    first_tile = int(pixels.max()) + 1
    size = first_tile + len(counts)
    links = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1] + first_tile)), shape=(size, size))
    pieces: Codes = connected_components(links, directed=False)[1][pixels].astype(np.int64)
    return pieces
