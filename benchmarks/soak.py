"""A soak: what grows where runs follow each other, in one process and on one Prefect server.

    python -m benchmarks.soak [--runs 20] [--retrains 200] [--minutes 0] [--no-result]

Trains and publishes so many runs of the smallest real configuration in this process, one after the other, and then has
a schedule ask for retraining where nothing is new, which a process of `prefect serve` answers with a process each.
After each, resident memory, open files and threads of this process, of that one and of the server are read, the bytes
of cache, temporary files, store and of the server's database. A series is `flat` where its slope after the first
iterations (the median of all pairs', by Theil and Sen) adds up to less than a tolerance over the whole of it. With
--minutes no iteration begins after so many, no run after half of them. Writes benchmarks/results/soak.json.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.chaos_runs import CONFIG
from benchmarks.machine import write_result
from benchmarks.soak_schedule import finished_runs, scheduled_retrains
from tasks.server_process import running_server

WARM_UP = 0.2
"""The part of the iterations in which caches and pools fill."""
TOLERANCES = {"MB": 20.0, "files": 3.0, "threads": 3.0, "disk MB": 1.0}
"""By how much a series may grow after the warm-up, whatever its length, and still be flat."""

Row = dict[str, float]


def process_row(name: str, process: psutil.Process) -> Row:
    """Resident memory, open files and threads of a process."""
    with process.oneshot():
        resident = process.memory_info().rss / 1e6
        return {f"{name} MB": resident, f"{name} files": process.num_fds(), f"{name} threads": process.num_threads()}


def disk_row(folder: Path, *names: str) -> Row:
    """The size of folders."""
    sizes = {name: sum(path.stat().st_size for path in (folder / name).rglob("*") if path.is_file()) for name in names}
    return {f"{name} disk MB": size / 1e6 for name, size in sizes.items()}


def slope(values: list[float]) -> float:
    """The median slope of all pairs, per iteration, after the warm-up."""
    steady = np.array(values[int(len(values) * WARM_UP) :])
    first, second = np.triu_indices(len(steady), 1)
    return float(np.median((steady[second] - steady[first]) / (second - first))) if len(steady) > 1 else 0.0


def verdicts(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """Each series with its first and last steady value, its slope, and whether it is flat."""
    found = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        steady, rise = values[int(len(values) * WARM_UP) :], slope(values)
        tolerance = next(limit for unit, limit in reversed(TOLERANCES.items()) if name.endswith(f" {unit}"))
        found[name] = {
            "first": round(steady[0], 3),
            "last": round(steady[-1], 3),
            "slope": round(rise, 4),
            "flat": rise * len(steady) <= tolerance,
        }
    return found


def measured(iterations: Iterator[object], row: Callable[[], Row], deadline: float, what: str) -> list[Row]:
    """A row after each iteration, until the deadline."""
    rows: list[Row] = []
    for number, _ in enumerate(iterations):
        rows.append({name: round(value, 3) for name, value in row().items()})
        print(f"{what} {number + 1}: " + ", ".join(f"{name} {value:g}" for name, value in rows[-1].items()), flush=True)
        if time.monotonic() > deadline:
            break
    return rows


def full_runs(count: int) -> Iterator[str]:
    """Train and publish so many runs in this process; the name of each once it is published."""
    from flows.full_train import full_train
    from pcam_model.config_reader import read_config

    for number in range(count):
        full_train(read_config(None, [*CONFIG, "source.kind=sample", f"run=soak-{number}"]))
        yield f"soak-{number}"


def soak(folder: Path, args: Any) -> dict[str, Any]:
    """Both parts on one server."""
    began, seconds = time.monotonic(), (args.minutes or 1e9) * 60
    with running_server(folder / "server", folder / "server.log"):
        server = next(child for child in psutil.Process().children() if "uvicorn" in " ".join(child.cmdline()))

        def row(name: str, process: psutil.Process) -> Row:
            both = process_row(name, process) | process_row("server", server)
            return both | disk_row(folder, "cache", "tmp", "store", "server")

        runs = measured(full_runs(args.runs), lambda: row("process", psutil.Process()), began + seconds / 2, "run")
        with scheduled_retrains(folder) as runner:
            retrains = measured(
                finished_runs(args.retrains), lambda: row("runner", runner), began + seconds, "retrain"
            )  # fmt: skip
    return {"runs": _part(runs), "retrains": _part(retrains)}


def _part(rows: list[Row]) -> dict[str, Any]:
    return {"iterations": len(rows), "series": verdicts(rows) if rows else {}, "rows": rows}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--retrains", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--no-result", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pcam-soak-") as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        os.environ |= {"PCAM_CACHE": str(folder / "cache"), "PCAM_STORE": (folder / "store").as_uri()}
        os.environ |= {"TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
        tempfile.tempdir = None
        figures = soak(folder, args)
    shown = {part: {key: each[key] for key in ("iterations", "series")} for part, each in figures.items()}
    if not args.no_result:
        write_result("soak", " ".join(["python -m benchmarks.soak", *sys.argv[1:]]), figures, shown)


if __name__ == "__main__":
    main()
