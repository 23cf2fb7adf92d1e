"""Writes the patches of a source to one .npy file, in chunks that threads read and decode ahead."""

import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from io import BufferedWriter
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.concurrency import ordered_prefetch
from pcam_model.core.errors import SourceError
from pcam_model.data.channel_stats import channel_sums, mean_and_std
from pcam_model.data.image import PATCH_SIZE, PatchError, pixel_digest
from pcam_model.data.patch_source import PatchSource
from pcam_model.data.source import SourceConfig

CHUNK = 32
OnProgress = Callable[[int, int], None]
"""Called with (patches done, patches in all)."""


@dataclass(frozen=True)
class BadPatch:
    """A row that could not be read as a patch."""

    row: int
    reason: str


@dataclass(frozen=True)
class PackContents:
    """Table, mean and std of the patches that were written, and the images that were set aside."""

    table: pd.DataFrame
    """Columns id, label, slide, domain where known, origin, pixels (digest) and pixel_std, a row a patch."""
    mean: tuple[float, ...]
    """Of red, green and blue, 0..1."""
    std: tuple[float, ...]
    """Of red, green and blue, 0..1."""
    quarantined: list[dict[str, str]]
    """Id and reason of each image that was set aside."""


@dataclass
class Chunk:
    """Consecutive patches with their digests and sums, and the images that could not be read."""

    pixels: NDArray[np.uint8]
    """(B, 96, 96, 3)."""
    digests: list[str]
    sums: NDArray[np.float64]
    """Of the pixels and of their squares, by patch and channel, (B, 2, 3)."""
    bad: list[BadPatch]


@dataclass
class _Totals:
    """What is known of all chunks so far."""

    digests: list[str] = field(default_factory=list)
    sums: list[NDArray[np.float64]] = field(default_factory=lambda: [np.empty((0, 2, 3))])
    bad: list[BadPatch] = field(default_factory=list)

    def add(self, chunk: Chunk) -> None:
        self.digests += chunk.digests
        self.sums.append(chunk.sums)
        self.bad += chunk.bad

    @property
    def rows(self) -> int:
        return len(self.digests) + len(self.bad)


def write_patches(
    source: PatchSource,
    rows: pd.DataFrame,
    path: Path,
    config: SourceConfig,
    source_name: str,
    on_progress: OnProgress | None,
) -> PackContents:
    """Write the patches of `rows` to an .npy file at `path`, and sync it.

    Raises:
        SourceError: the first bad patch, or more of them than the config's quarantine takes.
    """
    indices = [int(row) for row in rows.index]
    max_bad = int(len(indices) * config.max_bad_fraction) if config.on_bad_patch == "quarantine" else 0
    totals = _Totals()
    with path.open("wb") as file:
        file.write(npy_header(len(indices)))
        threads = min(source.max_threads, os.cpu_count() or 1)
        starts = range(0, len(indices), CHUNK)
        chunks = [indices[start : start + CHUNK] for start in starts]
        for chunk in ordered_prefetch(partial(read_chunk, source), chunks, threads, max_pending=2 * threads):
            file.write(chunk.pixels.data)
            totals.add(chunk)
            if len(totals.bad) > max_bad:
                raise SourceError(bad_patches_message(source_name, source.table, totals, config, len(indices)))
            if on_progress:
                on_progress(totals.rows, len(indices))
        _finish(file, len(totals.digests), len(indices))
    return _contents(rows, source.table["id"], totals)


def read_chunk(source: PatchSource, rows: list[int]) -> Chunk:
    """The patches of these rows with their digests and sums; bad ones are left out and listed."""
    pixels = np.empty((len(rows), PATCH_SIZE, PATCH_SIZE, 3), np.uint8)
    bad: list[BadPatch] = []
    good = 0
    for row, patch in zip(rows, source.patches(rows), strict=True):
        if isinstance(patch, PatchError):
            bad.append(BadPatch(row, str(patch)))
        else:
            pixels[good] = patch
            good += 1
    pixels = pixels[:good]
    return Chunk(pixels, [pixel_digest(patch.data) for patch in pixels], channel_sums(pixels), bad)


def npy_header(count: int) -> bytes:
    """The .npy header of a uint8 array (count, 96, 96, 3): 128 bytes for any count, so that it can be overwritten."""
    header = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (count, PATCH_SIZE, PATCH_SIZE, 3)}
    np.lib.format.write_array_header_1_0(header, fields)  # pads for a longer first axis
    return header.getvalue()


def _finish(file: BufferedWriter, count: int, expected: int) -> None:
    """Write the count into the header where it is not the expected one, and sync the file."""
    if count != expected:
        file.seek(0)
        file.write(npy_header(count))
    file.flush()
    os.fsync(file.fileno())


def _contents(rows: pd.DataFrame, ids: "pd.Series[str]", totals: _Totals) -> PackContents:
    columns = [name for name in ("id", "label", "slide", "domain", "origin") if name in rows]
    table = rows.drop([bad.row for bad in totals.bad])[columns].reset_index(drop=True)
    sums = np.concatenate(totals.sums)
    table["pixels"] = totals.digests
    table["pixel_std"] = mean_and_std(sums)[1].mean(axis=1).astype(np.float32)
    mean, std = mean_and_std(sums.mean(axis=0))
    quarantined = [{"id": str(ids[bad.row]), "reason": bad.reason} for bad in totals.bad]
    return PackContents(table, tuple(mean.tolist()), tuple(std.tolist()), quarantined)


def bad_patches_message(
    source_name: str, table: pd.DataFrame, totals: _Totals, config: SourceConfig, count: int
) -> str:
    """The error message for the first bad patch, or for too many."""
    bad, row, reason = totals.bad, totals.bad[0].row, totals.bad[0].reason
    first = table["member"][row] if "member" in table else table["id"][row]
    if len(bad) > max(1, len(totals.digests)):
        return (
            f"{source_name}: {len(bad):,} of the first {totals.rows:,} images are no patches (first {first}: {reason})"
            "; mend that, or give images of 96x96 RGB at 8 bits: others are not resampled here"
        )
    if config.on_bad_patch == "stop":
        return (
            f"{source_name}: {first} is no patch: {reason}; expected a whole 96x96 RGB image; repair it, remove it "
            "with its label, or set such patches aside with source.on_bad_patch=quarantine"
        )
    return (
        f"{source_name}: more than {config.max_bad_fraction:.2%} of the {count:,} patches are bad ({len(bad):,} so "
        f"far, first {first}: {reason}); download the source again, or allow more with source.max_bad_fraction"
    )
