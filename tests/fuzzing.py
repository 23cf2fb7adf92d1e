"""Broken archives by the thousand: `python tests/fuzzing.py 10000` tries that many."""

import os
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from patch_sets import make_patch_set, without_locks

from pcam_model.core.errors import PcamError
from pcam_model.data.pack import build_pack, load_table
from pcam_model.data.pack_verification import verify_pack
from pcam_model.data.source import SourceConfig, fetch

SECONDS, MEGABYTES = 10.0, 200  # what one try, and all together, may take


def flip(content: bytearray, chance: random.Random) -> None:
    """Some bits, often in the list of contents at the end."""
    lowest = len(content) - 1500 if chance.random() < 0.5 else 0
    for _ in range(chance.choice((1, 1, 1, 2, 8, 64))):
        content[chance.randrange(lowest, len(content))] ^= 1 << chance.randrange(8)


def cut(content: bytearray, chance: random.Random) -> None:
    """The end is missing."""
    del content[chance.randrange(len(content)) :]


def tear(content: bytearray, chance: random.Random) -> None:
    """A piece is missing, or stands there twice, or is zero."""
    start = chance.randrange(len(content))
    piece = content[start : start + chance.randrange(1, 5000)]
    content[start : start + len(piece)] = chance.choice((b"", piece * 2, bytes(len(piece))))


def forge(content: bytearray, chance: random.Random) -> None:
    """A size, an offset or a checksum in the list of contents says something else."""
    starts = [i for i in range(len(content) - 46) if content[i : i + 4] == b"PK\1\2"]
    place = chance.choice(starts) + chance.choice((8, 10, 16, 20, 24, 28, 30, 32, 42))
    forged = chance.choice((0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, chance.getrandbits(32)))
    content[place : place + 4] = struct.pack("<I", forged)


def try_one(whole: bytes, rows: list[tuple[str, ...]], seed: int, place: Path) -> str:
    """Break the archive in a way that the seed names, and pack it: what came of it; a wrong pack fails an assertion."""
    chance = random.Random(seed)
    content = bytearray(whole)
    chance.choice((flip, flip, forge, cut, tear))(content, chance)
    (place / "a.zip").write_bytes(content)
    policy = chance.choice(("stop", "quarantine"))
    config = SourceConfig(kind="path", path=str(place / "a.zip"), on_bad_patch=policy, max_bad_fraction=0.5)
    try:
        pack = build_pack(fetch(config, 2), config, place / "packs", 2)
    except PcamError as error:
        assert "\n" not in str(error)
        assert without_locks(place / "packs") == []
        return "refused"
    verify_pack(pack)
    found = packed(pack)
    assert set(found) <= set(rows) and (policy == "quarantine" or len(found) == len(rows)), seed
    for path in Path(pack.folder).iterdir():
        path.unlink()
    Path(pack.folder).rmdir()
    return "whole" if len(found) == len(rows) else "quarantined"


def packed(pack) -> list[tuple[str, ...]]:
    """What a pack says of each patch."""
    return [
        tuple(map(str, row)) for row in load_table(pack)[["id", "label", "pixels", "origin"]].itertuples(index=False)
    ]


def fuzz(tries: int, place: Path, seed: int = 0) -> Counter[str]:
    """So many broken archives; how many were refused, quarantined in part, or whole after all."""
    whole = make_patch_set(6, suffix="png", test=2).zip(place / "a.zip").read_bytes()
    config = SourceConfig(kind="path", path=str(place / "a.zip"))
    rows = packed(build_pack(fetch(config, 2), config, place / "first", 2))
    before, opened = set(place.parent.iterdir()), len(os.listdir("/proc/self/fd"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ends: Counter[str] = Counter()
    for i in range(tries):
        begun = time.process_time()
        ends[try_one(whole, rows, seed + i, place)] += 1
        assert time.process_time() - begun < SECONDS, seed + i
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < MEGABYTES << 10
    assert set(place.parent.iterdir()) == before
    assert len(os.listdir("/proc/self/fd")) <= opened
    assert {path.name for path in place.iterdir()} <= {"a.zip", "first", "packs"}
    return ends


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "here")
        place.mkdir()
        start = time.monotonic()
        print(dict(fuzz(int(sys.argv[1]), place)), f"in {time.monotonic() - start:.0f} s", os.uname().machine)
