"""Our zip reader and TIFF decoder beside zipfile and Pillow: patches a second, and what the packing gains by each.

    python -m benchmarks.readers ARCHIVE.zip [--rounds 5] [--limit 1000]

Every way of reading takes its turn in each round, so that a busy machine slows all of them; the figures are medians.
Ratios are to zipfile and Pillow in the same round.
"""

import argparse
import io
import statistics
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.machine import write_result
from pcam_model.data.image import FORMATS, Decoder, Patch
from pcam_model.data.kaggle_layout import KagglePatches
from pcam_model.data.pack_writer import write_patches
from pcam_model.data.patch_source import PatchSource
from pcam_model.data.source import SourceConfig
from pcam_model.data.zip_archive import Zip

ReadMember = Callable[[str], bytes]
Decode = Callable[[bytes], Patch]
BASELINE = "zipfile and Pillow"


def decode_with_bare_pillow(content: bytes) -> Patch:
    """The pixels as Pillow gives them, without the checks that a patch needs."""
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        return np.asarray(image)


class Source(PatchSource):
    """The patches of an archive by one reader and one decoder."""

    def __init__(self, table: pd.DataFrame, read: ReadMember, decode: Decode) -> None:
        self.table, self.read, self.decode = table, read, decode
        self.members = table["member"].tolist()

    def close(self) -> None:
        """Do nothing: the archives are closed by their owner."""

    def patch(self, row: int) -> Patch:
        """uint8 (96, 96, 3)."""
        return self.decode(self.read(self.members[row]))


def read_all(source: Source) -> None:
    """Read and decode every patch, in one thread."""
    for row in range(len(source.members)):
        source.patch(row)


def pack_all(source: Source) -> None:
    """Write the patches as a pack's are, read ahead by threads."""
    with tempfile.TemporaryDirectory() as folder:
        write_patches(source, source.table, Path(folder, "patches.npy"), SourceConfig(), "benchmark", None)


def rates(sources: dict[str, Source], work: Callable[[Source], None], rounds: int) -> dict[str, list[float]]:
    """Patches a second of each source, by round."""
    result: dict[str, list[float]] = {name: [] for name in sources}
    for _ in range(rounds):
        for name, source in sources.items():
            start = time.perf_counter()
            work(source)
            result[name].append(len(source.members) / (time.perf_counter() - start))
    return result


def summary(by_source: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """The median rate of each source, and its median ratio to the baseline's of the same round."""
    baseline = by_source[BASELINE]
    return {
        name: {
            "patches_per_second": round(statistics.median(values)),
            "ratio": round(statistics.median(a / b for a, b in zip(values, baseline, strict=True)), 2),
        }
        for name, values in by_source.items()
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--limit", type=int, default=1000)
    args = parser.parse_args(argv)
    table = KagglePatches(args.archive).table.head(args.limit)
    ours, standard = Zip(args.archive), zipfile.ZipFile(args.archive)
    sources = {
        BASELINE: Source(table, standard.read, decode_with_bare_pillow),
        "zipfile and our decoder": Source(table, standard.read, Decoder()),
        "our zip reader and Pillow": Source(table, ours.read, decode_with_bare_pillow),
        "our zip reader and decoder": Source(table, ours.read, Decoder()),
    }
    patches = {
        name: np.stack([source.patch(row) for row in range(min(64, len(table)))]) for name, source in sources.items()
    }
    assert all(np.array_equal(each, patches[BASELINE]) for each in patches.values())
    figures = {
        "archive": args.archive.name,
        "patches": len(table),
        "rounds": args.rounds,
        "one_thread": summary(rates(sources, read_all, args.rounds)),
        "packing": summary(rates(sources, pack_all, args.rounds)),
    }
    write_result("readers", f"python -m benchmarks.readers {args.archive.name}", figures)


if __name__ == "__main__":
    main()
