"""Patches flow from a source to one array on disk, some hundreds at a time, read by threads."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SourceError
from pcam_model.data.channel_stats import channel_sums, mean_and_std
from pcam_model.data.image import SIZE, Patch, PatchError, pixel_digest
from pcam_model.data.source import SourceConfig

CHUNK = 128
Bad = tuple[int, str]


class PatchSource(Protocol):
    """A table of patches (id, label, slide, origin) and the pixels of each row."""

    table: pd.DataFrame

    def close(self) -> None:
        """Let go of open files."""

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Any thread may call it."""


@dataclass
class Streamed:
    """What was written: its table, mean and std a channel, and what was set aside, with the reason."""

    table: pd.DataFrame
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quarantined: list[dict[str, str]]


@dataclass
class Chunk:
    """Some patches in the order of their rows, and their sums (B, 2, 3)."""

    pixels: NDArray[np.uint8]
    digests: list[str]
    sums: NDArray[np.float64]
    bad: list[Bad] = field(default_factory=list)


def stream(
    source: PatchSource,
    rows: pd.DataFrame,
    path: Path,
    config: SourceConfig,
    name: str,
    progress: Callable[[int, int], None] | None,
) -> Streamed:
    """Write the rows' patches to an .npy file at `path`. Raises SourceError for the first bad patch, or for too many."""
    wanted = [int(row) for row in rows.index]
    most_bad = int(len(wanted) * config.max_bad_fraction) if config.on_bad_patch == "quarantine" else 0
    digests: list[str] = []
    bad: list[Bad] = []
    sums = []
    with path.open("wb") as file:
        file.write(header(len(wanted)))
        for chunk in chunks(source, wanted):
            file.write(chunk.pixels.data)
            digests += chunk.digests
            sums.append(chunk.sums)
            bad += chunk.bad
            if len(bad) > most_bad:
                raise SourceError(complaint(name, source.table, bad, config, len(wanted)))
            if progress:
                progress(len(digests) + len(bad), len(wanted))
        finish(file, len(digests), len(wanted))
    ids = source.table["id"]
    left = rows.drop([row for row, _ in bad])[["id", "label", "slide", "origin"]].reset_index(drop=True)
    left["pixels"] = digests
    quarantined = [{"id": str(ids[row]), "reason": why} for row, why in bad]
    each = np.concatenate([np.empty((0, 2, 3)), *sums])
    left["spread"] = mean_and_std(each)[1].mean(axis=1).astype(np.float32)
    mean, std = mean_and_std(each.mean(axis=0))
    return Streamed(left, tuple(mean.tolist()), tuple(std.tolist()), quarantined)


def chunks(source: PatchSource, wanted: list[int]) -> Iterator[Chunk]:
    """The wanted rows' patches in order; a few chunks are read ahead, no more, so memory stays small."""
    threads = os.cpu_count() or 1
    starts = iter(range(0, len(wanted), CHUNK))
    pending: deque[Future[Chunk]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            while True:
                while len(pending) < 2 * threads and (start := next(starts, None)) is not None:
                    pending.append(pool.submit(read_chunk, source, wanted[start : start + CHUNK]))
                if not pending:
                    return
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def read_chunk(source: PatchSource, rows: list[int]) -> Chunk:
    """These rows' patches, their digests and sums."""
    pixels = np.empty((len(rows), SIZE, SIZE, 3), np.uint8)
    bad: list[Bad] = []
    good = 0
    for row in rows:
        try:
            pixels[good] = source.patch(row)
            good += 1
        except PatchError as error:
            bad.append((row, str(error)))
    pixels = pixels[:good]
    digests = [pixel_digest(patch.data) for patch in pixels]
    return Chunk(pixels, digests, channel_sums(pixels), bad)


def header(count: int) -> bytes:
    """The .npy header of uint8 (count, 96, 96, 3), always 128 bytes."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, {SIZE}, {SIZE}, 3), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def finish(file: BufferedWriter, count: int, expected: int) -> None:
    """Tell the header how many patches came, and have everything on the disk."""
    if count != expected:
        file.seek(0)
        file.write(header(count))
    file.flush()
    os.fsync(file.fileno())


def complaint(name: str, table: pd.DataFrame, bad: list[Bad], config: SourceConfig, count: int) -> str:
    """The sentence about bad patches."""
    row, why = bad[0]
    first = table["member"][row] if "member" in table else table["id"][row]
    if config.on_bad_patch == "stop":
        return (
            f"{name}: {first} is no patch: {why}; every image is a whole 96x96 RGB one; mend or remove it, or set such "
            "patches aside with source.on_bad_patch=quarantine"
        )
    return (
        f"{name}: more than {config.max_bad_fraction:.2%} of the {count:,} patches are bad ({len(bad):,} so far; first {first}: "
        f"{why}); get the source again, or allow more with source.max_bad_fraction"
    )
