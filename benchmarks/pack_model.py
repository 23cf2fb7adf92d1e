"""A model of packing: what each part costs a patch, alone, and how much of it holds the interpreter's lock (the GIL).

Threads share one GIL, so that packing is never faster than one patch per GIL-held time, whatever the number of cores.
py-spy, which reads another process's memory, samples who holds it; `pip install py-spy`.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from pcam_model.data.channel_stats import channel_sums
from pcam_model.data.image import Decoder, pixel_digest
from pcam_model.data.kaggle_layout import KagglePatches
from pcam_model.data.pack_writer import CHUNK, read_chunk
from pcam_model.data.zip_archive import Zip
from pcam_model.data.zip_block import inflate_block

SECONDS, RATE = 2, 1000
CORES = (2, 16)
READING, WRITING = "all of reading", "write"


def cost(part: Callable[[], object], patches: int) -> dict[str, float]:
    """Microseconds a patch of a part in one thread: of processor, and with the GIL held."""
    stop, used = threading.Event(), list[float]()

    def sampled_loop() -> None:
        start, calls = time.thread_time(), 0
        while not stop.is_set():
            part()
            calls += 1
        used.append((time.thread_time() - start) / (calls * patches))

    thread = threading.Thread(target=sampled_loop)
    thread.start()
    try:
        held = samples_with_gil("sampled_loop") / (SECONDS * RATE)
    finally:
        stop.set()
        thread.join()
    return {"processor_us": round(1e6 * used[0], 2), "gil_us": round(1e6 * used[0] * held, 2)}


def samples_with_gil(function: str) -> int:
    """In how many of SECONDS * RATE samples of this process a thread in this function holds the GIL."""
    with tempfile.NamedTemporaryFile() as file:
        options = ["--format", "raw", "--rate", str(RATE), "--duration", str(SECONDS), "--output", file.name]
        command = ["py-spy", "record", "--gil", "--nonblocking", "--pid", str(os.getpid()), *options]
        subprocess.run(command, check=True, capture_output=True)
        stacks = [line.rpartition(" ") for line in Path(file.name).read_text().splitlines()]
    return sum(int(count) for stack, _, count in stacks if function in stack)


def parts(archive: Path, scratch: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each part of packing as a function that handles CHUNK patches; READING is all that a thread does for them."""
    source, container, decode = KagglePatches(archive), Zip(archive), Decoder()
    with closing(source), closing(container), (scratch / "patches").open("wb") as file:
        members = [container.members[name] for name in source.members[:CHUNK]]
        compressed = [container.compressed_bytes(member) for member in members]
        patches = [decode(content) for content in inflate_block(members, compressed)]
        contents = inflate_block(members, compressed)
        pixels = np.stack(patches)

        def write() -> None:
            file.write(pixels.data)
            if file.tell() > 1 << 28:
                file.seek(0)

        yield "read", lambda: [container.compressed_bytes(member) for member in members]
        yield "inflate", lambda: inflate_block(members, compressed)
        yield "decode", lambda: [decode(content) for content in contents]
        yield "digest", lambda: [pixel_digest(patch.data) for patch in patches]
        yield "statistics", lambda: channel_sums(pixels)
        yield READING, lambda: read_chunk(source, list(range(CHUNK)))
        yield WRITING, write


def packing_model(archive: Path, folder: Path, packing: dict[str, Any]) -> dict[str, Any]:
    """The costs of the parts, and patches a second by them on some numbers of cores, beside those measured on this one.

    Opening and ending are done by one thread. Between them, the longest decides: the time that a patch holds the GIL,
    its writing, by one thread, or its share of the cores. Handing the GIL to another thread is not in the model.
    """
    costs = {name: cost(part, CHUNK) for name, part in parts(archive, folder)}
    reading, writing = costs[READING], costs[WRITING]
    gil_us = reading["gil_us"] + writing["gil_us"]
    serial: float = packing["opening_seconds"] + packing["ending_seconds"]
    count: int = packing["patches"]

    def rate(cores: int) -> int:
        threads_us = reading["processor_us"] / min(cores, KagglePatches.max_threads)
        shared_us = (reading["processor_us"] + writing["processor_us"]) / cores
        return round(count / (serial + count * max(gil_us, writing["processor_us"], threads_us, shared_us) / 1e6))

    return {
        "parts": costs,
        "gil_ceiling_patches_per_second": round(1e6 / gil_us),
        "predicted_patches_per_second": {str(cores): rate(cores) for cores in CORES},
    }
