"""Packing a Kaggle-layout archive: patches a second, peak memory, disk; opening and verifying a pack.

    python -m benchmarks.pack ARCHIVE.zip [--rounds 3] [--folder DIR]

Each packing is a process of its own, so that its peak memory is its own. On a machine that works on other things too,
run it with `chrt --rr 1` before it; the result says so. The model of `benchmarks.pack_model` tells what more cores
would give.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.pack_model import packing_model
from pcam_model.data import pack as packing
from pcam_model.data.image import PATCH_BYTES
from pcam_model.data.pack import Pack, build_pack, load_patches, load_table, open_pack
from pcam_model.data.pack_files import PackRecord, write_pack_record
from pcam_model.data.pack_identity import VERSION
from pcam_model.data.pack_verification import verify_pack
from pcam_model.data.pack_writer import npy_header
from pcam_model.data.source import SourceConfig, fetch

LARGE = 200_000


def peak_memory() -> float:
    """Peak resident megabytes of this process; getrusage would count what its parent had, too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def pack_once(archive: str, limit: int | None, packs: Path) -> None:
    """Pack, and print the figures of this process."""
    config = SourceConfig(kind="path", path=archive, max_patches=limit)
    source = fetch(config, 2)
    wall, cpu, written = time.perf_counter(), time.process_time(), list[float]()
    pack = build_pack(source, config, packs, 2, lambda *_: written.append(time.perf_counter() - wall))
    seconds, used = time.perf_counter() - wall, time.process_time() - cpu
    size = sum(path.stat().st_size for path in Path(pack.folder).iterdir())
    print(
        json.dumps(
            {
                "patches": pack.count,
                "seconds": seconds,
                "opening_seconds": written[0],
                "ending_seconds": seconds - written[-1],
                "cpu_seconds": used,
                "patches_per_second": pack.count / seconds,
                "peak_mb": peak_memory(),
                "disk_share": size / (pack.count * PATCH_BYTES),
                "folder": pack.folder,
            }
        )
    )


def in_a_process(archive: str, limit: int | None, packs: Path) -> dict[str, Any]:
    """The figures of one packing, by a fresh process into an empty folder."""
    shutil.rmtree(packs, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.pack", archive, "--once", "--folder", str(packs)]
    done = subprocess.run([*command, "--limit", str(limit or 0)], check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def large_pack(folder: Path) -> Path:
    """A pack of 200,000 patches, its array a sparse file."""
    folder.mkdir(parents=True)
    with (folder / packing.PATCHES).open("wb") as file:
        file.write(npy_header(LARGE))
        file.truncate(len(npy_header(LARGE)) + LARGE * PATCH_BYTES)
    ids = [f"{i:040x}" for i in range(LARGE)]
    rows = pd.DataFrame({"id": ids, "label": pd.array(np.arange(LARGE) % 2, "Int8"), "slide": None, "origin": "train"})
    rows.assign(pixels=ids, pixel_std=0.2).to_parquet(folder / packing.TABLE, index=False)
    sizes = {name: (folder / name).stat().st_size for name in (packing.PATCHES, packing.TABLE)}
    zero = (0.0, 0.0, 0.0)
    keys = {"digest": "", "count": LARGE, "labelled": LARGE, "mean": zero, "std": zero, "source": "benchmark"}
    write_pack_record(folder, PackRecord.model_validate({**keys, "version": VERSION, "bytes": sizes}))
    return folder


def timed(work: Callable[[], Any], rounds: int = 5, before: Callable[[], Any] = lambda: None) -> float:
    """The median seconds of a call; `before` is called before each, and not counted."""
    seconds = []
    for _ in range(rounds):
        before()
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def opening(folder: Path) -> dict[str, float]:
    """Milliseconds to open a pack of 200,000 patches, and to read its table."""
    packed = large_pack(folder)
    pack = open_pack(packed)
    return {
        "open_ms": 1000 * timed(lambda: load_patches(open_pack(packed))[LARGE - 1].sum()),
        "table_ms": 1000 * timed(lambda: load_table(pack)),
    }


def verifying(pack: Pack) -> dict[str, float]:
    """Megabytes a second of verifying a pack, and of only reading its file: from memory, and from the disk."""
    path = Path(pack.folder) / packing.PATCHES
    size = path.stat().st_size / 1e6

    def read() -> None:
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 22):
                pass

    def drop_page_cache() -> None:
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return {
        "verify_mb_per_second": size / timed(lambda: verify_pack(pack), 3),
        "read_mb_per_second": size / timed(read, 3),
        "verify_from_disk_mb_per_second": size / timed(lambda: verify_pack(pack), 3, drop_page_cache),
        "read_from_disk_mb_per_second": size / timed(read, 3, drop_page_cache),
    }


def real_time() -> bool:
    """Whether this process goes before all others."""
    return os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--limit", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.once:
        return pack_once(args.archive, args.limit or None, args.folder)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        from benchmarks.machine import write_result

        packs = Path(folder, "packs")
        small = in_a_process(args.archive, 2000, packs)
        rounds = [in_a_process(args.archive, None, packs) for _ in range(args.rounds)]
        figures: dict[str, Any] = {
            "packing": sorted(rounds, key=lambda figures: figures["seconds"])[len(rounds) // 2],
            "rounds_patches_per_second": [figures["patches_per_second"] for figures in rounds],
            "packing_2000": small,
            "verifying": verifying(open_pack(Path(rounds[-1]["folder"]))),
            "opening_200000": opening(Path(folder, "large")),
        }
        for title in ("packing", "packing_2000"):
            figures[title].pop("folder", None)
        figures["model"] = packing_model(Path(args.archive), Path(folder), figures["packing"])
        name = Path(args.archive).name
        write_result(
            "pack", f"python -m benchmarks.pack {name}", {"archive": name, "real_time": real_time(), **figures}
        )


if __name__ == "__main__":
    main()
