"""Where things are kept: the cache, its disk and the store."""

import json
import shutil
import uuid
import zipfile
from pathlib import Path

from pcam_model.check.findings import Finding
from pcam_model.data.image import PATCH_BYTES
from pcam_model.data.source import SAMPLE_COUNT, SourcePlan
from pcam_model.core.errors import PcamError
from pcam_model.core.paths import cache_folder, store_address
from pcam_model.config import TrainPlan
from pcam_model.registry.capabilities import probe
from pcam_model.registry.backends.base import StoreAway, open_store

KAGGLE_PATCHES, KAGGLE_ARCHIVE = 277_483, 7.8e9  # patches of both parts, and bytes of the zip
BESIDE = 2e9  # a run's own scratch: checkpoints, pictures
ELSEWHERE = "put PCAM_CACHE on a larger disk, or free some room there"


def cache() -> Finding:
    """Whether the cache can be written to."""
    folder = cache_folder()
    trial = folder / f".check-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"x")
        trial.unlink()
    except OSError as error:
        return Finding(what="cache", found=f"{folder}: {error.strerror}", expected="a folder that can be written to",
                       todo="set PCAM_CACHE to one, or change its owner", level="failed")  # fmt: skip
    return Finding(what="cache", found=str(folder), expected="a folder that can be written to")


def disk(plan: TrainPlan) -> Finding:
    """Whether the cache's disk holds the pack and what it is made from."""
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    free, needed = shutil.disk_usage(folder).free, still_needed(plan.source)
    level, todo = ("fine", "") if free >= needed else ("failed", ELSEWHERE)
    return Finding.model_validate({
        "what": "disk for the pack", "found": f"{free / 1e9:.1f} GB free in {folder}",
        "expected": f"{needed / 1e9:.1f} GB", "todo": todo, "level": level,
    })  # fmt: skip


def still_needed(plan: SourcePlan) -> float:
    """Bytes that a run will still write to the cache: archive and pack, less what lies there already."""
    count, archive = patches_of(plan), KAGGLE_ARCHIVE if plan.kind == "kaggle" else 0.0
    if count in packed_counts():
        return BESIDE
    if plan.kind == "kaggle" and any((cache_folder() / "downloads").glob("*.zip")):
        archive = 0.0
    return BESIDE + archive + count * PATCH_BYTES


def patches_of(plan: SourcePlan) -> int:
    """About how many patches a source has; 0 where only packing finds out."""
    path = Path(plan.path).expanduser()
    count = {"sample": SAMPLE_COUNT, "kaggle": KAGGLE_PATCHES}.get(plan.kind, 0)
    if plan.kind == "path" and path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            count = len(archive.namelist())
    return min(count, plan.limit) if plan.limit and count else plan.limit or count


def packed_counts() -> set[int]:
    """How many patches each pack in the cache has."""
    found = set()
    for record in (cache_folder() / "packs").glob("[!.]*/pack.json"):
        try:
            found.add(int(json.loads(record.read_bytes())["count"]))
        except (OSError, ValueError, KeyError):
            continue
    return found


def store(plan: TrainPlan) -> Finding:
    """Whether the store can be read and written, and keeps its word on conditions (which promotion rests on)."""
    address, expected = store_address(plan.store.uri), "a store that can be written to and keeps conditional writes"
    try:
        kept = open_store(address)
        conditions = probe(kept)
    except PcamError as error:
        return Finding(what="store", found=str(error), expected=expected, level="failed",
                       todo="set --store or PCAM_STORE, and for a bucket AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, "
                       "AWS_SECRET_ACCESS_KEY", passing=isinstance(error, StoreAway))  # fmt: skip
    if conditions.kept:
        return Finding(what="store", found=kept.uri, expected=expected)
    ignored = " and ".join(name for name, held in (("If-None-Match", conditions.absent), ("If-Match", conditions.match))
                           if not held)  # fmt: skip
    return Finding(what="store", found=f"{kept.uri} does not keep {ignored}", expected=expected, level="warning",
                   todo="runs are published there, but promotion needs another store")  # fmt: skip
