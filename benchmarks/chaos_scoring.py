"""Scoring in shards as a campaign's job, and its faults."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.chaos_fault import Broken, Fault, killed
from benchmarks.chaos_processes import children
from benchmarks.chaos_runs import NAME, Home, Job

SCORE = "from benchmarks.chaos_scoring import main; main()"
SHARD_SIZE, SHARDS = 16, 15
START_TIMEOUT_S = 60.0


def scoring_job(trained: Path) -> Job:
    """Scoring of the patches of a run in a home's folder, with its model."""
    pack = next((trained / "cache" / "packs").glob("*/pack.json")).parent
    result, manifest = f"scores/{NAME}/predictions.csv", f"scores/{NAME}/manifest.json"
    return Job(
        words=(str(pack), f"{(trained / 'store').as_uri()}/runs/{NAME}"),
        program=SCORE,
        result=result,
        manifest=manifest,
    )


def main() -> None:
    """Score SOURCE with MODEL, by threads or on the CLUSTER; a mistake is one line, as of `pcam`."""
    from flows.score import score
    from pcam_model.core.errors import PcamError
    from tasks.api_server import usable_server

    source, model, *cluster = sys.argv[1:]
    try:
        with usable_server():
            score(source, model, name=NAME, shard_size=SHARD_SIZE, cluster="".join(cluster))
    except PcamError as error:
        sys.exit(f"pcam: {error}")


def shard_process_killed(home: Home, draw: random.Random, _: float) -> Broken:
    """Kill one of two processes of a Dask cluster that score shards, after the first shard."""
    with _dask_cluster(home) as (address, workers):
        home.job = home.job._replace(words=(*home.job.words, address))
        process, after = home.start(), draw.randrange(1, SHARDS - 2)
        while process.poll() is None and len(home.files("store", "shards")) < after:
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 1))
        victims = list(children(workers.pid, "spawn_main"))
        done = len(home.files("store", "shards"))
        for victim in (victims := draw.sample(victims, min(1, len(victims)))):
            victim.kill()
        ended = home.wait(process)
        home.job = home.job._replace(words=home.job.words[:-1])
    what = f"{len(victims)} of 2 processes killed after {done} shards: exit code {ended.code}"
    return Broken(what, codes=(0, 1), code=ended.code)


@contextmanager
def _dask_cluster(home: Home) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """The address of a cluster of two processes, and the process that watches over them."""
    record = home.folder / "scheduler.json"
    scheduler = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(record))
    worker = ("worker", "--nworkers", "2", "--nthreads", "1", "--no-dashboard", "--scheduler-file", str(record))
    with (home.folder / "dask.log").open("wb") as log:
        started = [
            subprocess.Popen(
                [sys.executable, "-m", "dask", *words], env=home.environment, cwd=home.folder, stdout=log, stderr=log
            )
            for words in (scheduler, (*worker, "--local-directory", str(home.folder / "dask")))
        ]  # fmt: skip
    try:
        yield _address(record), started[1]
    finally:
        for process in reversed(started):
            below = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait()
            for left in psutil.wait_procs(below, 10)[1]:
                left.kill()


def _address(record: Path) -> str:
    end = time.monotonic() + START_TIMEOUT_S
    while not record.exists() or not record.read_text():
        if time.monotonic() > end:
            raise TimeoutError("Dask's scheduler does not start")
        time.sleep(0.1)
    return str(json.loads(record.read_text())["address"])


def shard_damaged(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the scoring, and change a digit in a shard that it has stored."""
    before = killed(home, draw, seconds)
    shards = home.files("store", "shards")
    if home.is_published() or not shards:
        return before
    path = draw.choice(shards)
    content = bytearray(path.read_bytes())
    at = draw.choice([index for index, byte in enumerate(content) if chr(byte).isdigit()])
    content[at] = ord("0") + (content[at] - ord("0") + draw.randrange(1, 10)) % 10
    path.write_bytes(content)
    return before._replace(what=f"{before.what}, a digit of a shard changed")


SCORING_FAULTS: dict[str, Fault] = {
    "scoring killed": Fault(killed, job="scoring"),
    "scoring shard's process killed": Fault(shard_process_killed, job="scoring", cause=r"worker|shard|process"),
    "scoring shard damaged": Fault(shard_damaged, job="scoring"),
}
