"""Fuzzing of the packing with damaged archives: `python tests/fuzzing.py 10000` tries that many."""

import os
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from patch_sets import make_patch_set, without_locks

from pcam_model.core.errors import PcamError
from pcam_model.data.pack import Pack, build_pack, load_table
from pcam_model.data.pack_verification import verify_pack
from pcam_model.data.source import SourceConfig, fetch

MAX_SECONDS = 10.0
"""Of processor time for one archive."""
MAX_MEGABYTES = 200
"""By which memory may grow in all."""


def flip_bits(content: bytearray, rng: random.Random) -> None:
    """Flip some bits, often in the central directory at the end."""
    lowest = len(content) - 1500 if rng.random() < 0.5 else 0
    for _ in range(rng.choice((1, 1, 1, 2, 8, 64))):
        content[rng.randrange(lowest, len(content))] ^= 1 << rng.randrange(8)


def truncate(content: bytearray, rng: random.Random) -> None:
    """Remove the end."""
    del content[rng.randrange(len(content)) :]


def damage_block(content: bytearray, rng: random.Random) -> None:
    """Remove a block, repeat it, or set it to zero."""
    start = rng.randrange(len(content))
    block = content[start : start + rng.randrange(1, 5000)]
    content[start : start + len(block)] = rng.choice((b"", block * 2, bytes(len(block))))


def forge_directory(content: bytearray, rng: random.Random) -> None:
    """Change a size, an offset or a checksum in the central directory."""
    starts = [i for i in range(len(content) - 46) if content[i : i + 4] == b"PK\1\2"]
    offset = rng.choice(starts) + rng.choice((8, 10, 16, 20, 24, 28, 30, 32, 42))
    value = rng.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, rng.getrandbits(32)))
    content[offset : offset + 4] = struct.pack("<I", value)


def try_one(archive: bytes, rows: list[tuple[str, ...]], seed: int, home: Path) -> str:
    """Damage the archive by the seed and pack it: "refused", "quarantined" or "complete".

    A pack with patches that are not among `rows`, or without some of them where none may be set aside, fails an
    assertion; so does a refusal that leaves files behind.
    """
    rng = random.Random(seed)
    content = bytearray(archive)
    rng.choice((flip_bits, flip_bits, forge_directory, truncate, damage_block))(content, rng)
    (home / "a.zip").write_bytes(content)
    policy = rng.choice(("stop", "quarantine"))
    config = SourceConfig(kind="path", path=str(home / "a.zip"), on_bad_patch=policy, max_bad_fraction=0.5)
    refusal = None
    try:
        pack = build_pack(fetch(config, 2), config, home / "packs", 2)
    except PcamError as error:
        refusal = str(error)
    if refusal is not None:
        assert "\n" not in refusal, seed
        assert without_locks(home / "packs") == [], seed
        return "refused"
    verify_pack(pack)
    packed = table_rows(pack)
    assert set(packed) <= set(rows), seed
    assert policy == "quarantine" or len(packed) == len(rows), seed
    shutil.rmtree(pack.folder)
    return "complete" if len(packed) == len(rows) else "quarantined"


def table_rows(pack: Pack) -> list[tuple[str, ...]]:
    """Id, label, pixel digest and origin of each patch of a pack."""
    table = load_table(pack)[["id", "label", "pixels", "origin"]]
    return [tuple(map(str, row)) for row in table.itertuples(index=False)]


def fuzz(tries: int, home: Path, seed: int = 0) -> Counter[str]:
    """Pack so many damaged archives below `home`; how many ended "refused", "quarantined" and "complete"."""
    archive = make_patch_set(6, suffix="png", test=2).zip(home / "a.zip").read_bytes()
    config = SourceConfig(kind="path", path=str(home / "a.zip"))
    rows = table_rows(build_pack(fetch(config, 2), config, home / "first", 2))
    siblings, open_files = set(home.parent.iterdir()), count_open_files()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    for i in range(tries):
        begun = time.process_time()
        outcomes[try_one(archive, rows, seed + i, home)] += 1
        assert time.process_time() - begun < MAX_SECONDS, seed + i
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MAX_MEGABYTES << 10
    assert set(home.parent.iterdir()) == siblings
    assert count_open_files() <= open_files
    assert {path.name for path in home.iterdir()} <= {"a.zip", "first", "packs"}
    return outcomes


def count_open_files() -> int:
    """Open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        start = time.monotonic()
        print(dict(fuzz(int(sys.argv[1]), home)), f"in {time.monotonic() - start:.0f} s", os.uname().machine)
