"""How fast the store moves a large file, beside boto3's own transfer on the same server, and how fast it checks.

    AWS_ENDPOINT_URL_S3=... python benchmarks/store.py s3://bucket/bench      (any S3 server will do)

Writes benchmarks/results/store.json: MB/s of both, interleaved, the ratio of the medians, peak memory of our side, and
seconds for the check of a manifest of 1,000 files.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from pcam_model.registry.backends.s3 import S3Store
from pcam_model.registry.factory import open_store
from pcam_model.registry.manifest import FileRecord, check_sizes, json_bytes

MEGABYTES = int(os.environ.get("MEGABYTES", 500))
ROUNDS = int(os.environ.get("ROUNDS", 5))
RESULT = Path(__file__).parent / "results" / "store.json"


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def moved(store: S3Store, folder: Path) -> dict[str, list[float]]:
    """MB/s a round, ours and boto3's turn about on the same file."""
    path, back = folder / "large.bin", folder / "back.bin"
    fill(path)
    bare = boto3.client("s3", region_name="us-east-1", config=Config(s3={"addressing_style": "path"}))
    bucket = store.bucket
    works: dict[str, Callable[[], Any]] = {
        "upload_ours": lambda: store.upload("ours", path),
        "upload_boto3": lambda: bare.upload_file(str(path), bucket, store.prefix + "bare"),
        "download_ours": lambda: store.download("ours", back),
        "download_boto3": lambda: bare.download_file(bucket, store.prefix + "bare", str(back)),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(ROUNDS):
        names = list(works) if turn % 2 == 0 else [list(works)[i] for i in (1, 0, 3, 2)]
        for name in names:
            rates[name].append(round(MEGABYTES / seconds(works[name]), 1))
    for key in ("ours", "bare"):
        store.delete(key)
    return rates


def fill(path: Path) -> None:
    """In pieces: a process takes over the peak memory of the one that starts it."""
    with path.open("wb") as file:
        for _ in range(MEGABYTES):
            file.write(os.urandom(1 << 20))


def memory(address: str) -> float:
    """Peak memory in MB of a process that uploads and downloads the file."""
    done = subprocess.run(
        [sys.executable, __file__, address, "--memory"], capture_output=True, text=True, check=True, env=os.environ
    )
    return float(done.stdout.split()[-1])


def measure_memory(store: S3Store, folder: Path) -> None:
    fill(folder / "large.bin")
    store.upload("memory", folder / "large.bin")
    store.download("memory", folder / "back.bin")
    store.delete("memory")
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))


def manifest_check(store: S3Store) -> float:
    """Seconds to check a manifest of 1,000 files against the store."""
    files = {f"files/{number:04d}.json": b"%d" % number for number in range(1000)}
    for name, content in files.items():
        store.write(f"runs/bench/{name}", content)
    record = {name: FileRecord(size=len(content), sha256="0" * 64) for name, content in files.items()}
    took = seconds(lambda: check_sizes(store, "bench", record))
    for name in files:
        store.delete(f"runs/bench/{name}")
    return round(took, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("uri", help="s3://bucket/prefix")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    store = open_store(args.uri)
    if not isinstance(store, S3Store):
        raise SystemExit("name an s3:// store")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_FOLDER")) as folder:
        if args.memory:
            measure_memory(store, Path(folder))
            return
        rates = moved(store, Path(folder))
    median = {name: statistics.median(values) for name, values in rates.items()}
    result = {
        "what": f"a file of {MEGABYTES} MB to and from an S3 server on this machine, {ROUNDS} rounds turn about",
        "beside": "boto3's upload_file and download_file with its own settings, path-style",
        "command": "python benchmarks/store.py s3://bucket/bench",
        "megabytes_per_second": rates,
        "median": median,
        "upload_ratio": round(median["upload_ours"] / median["upload_boto3"], 3),
        "download_ratio": round(median["download_ours"] / median["download_boto3"], 3),
        "peak_memory_mb": memory(args.uri),
        "manifest_of_1000_files_seconds": manifest_check(store),
        "machine": {"cores": os.cpu_count(), "load": os.getloadavg(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "boto3": boto3.__version__},
        "server": os.environ.get("BENCH_SERVER", ""),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_bytes(json_bytes(result))
    print(
        json.dumps(
            {
                name: result[name]
                for name in (
                    "median",
                    "upload_ratio",
                    "download_ratio",
                    "peak_memory_mb",
                    "manifest_of_1000_files_seconds",
                )
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
