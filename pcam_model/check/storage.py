"""Where things are kept: the cache, its disk and the store."""

import json
import shutil
import uuid
import zipfile
from pathlib import Path

from pcam_model.check.findings import Finding
from pcam_model.config import TrainConfig
from pcam_model.core.errors import PcamError
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.data.image import PATCH_BYTES
from pcam_model.data.source import SAMPLE_COUNT, SourceConfig
from pcam_model.registry.backends.base import StoreUnavailable, open_store
from pcam_model.registry.capabilities import probe

KAGGLE_PATCHES, KAGGLE_ARCHIVE = 277_483, 7.8e9  # patches of both parts, and bytes of the zip
BESIDE = 2e9  # a run's own scratch: checkpoints, pictures
ELSEWHERE = "put PCAM_CACHE on a larger disk, or free some room there"


def cache() -> Finding:
    """Whether the cache can be written to."""
    folder = cache_dir()
    trial = folder / f".check-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.write_bytes(b"x")
        trial.unlink()
    except OSError as error:
        return Finding(what="cache", found=f"{folder}: {error.strerror}", expected="a folder that can be written to",
                       remedy="set PCAM_CACHE to one, or change its owner", level="failed")  # fmt: skip
    return Finding(what="cache", found=str(folder), expected="a folder that can be written to")


def disk(config: TrainConfig) -> Finding:
    """Whether the cache's disk holds the pack and what it is made from."""
    folder = cache_dir()
    while not folder.exists():
        folder = folder.parent
    free, required = shutil.disk_usage(folder).free, still_needed(config.source)
    level, remedy = ("fine", "") if free >= required else ("failed", ELSEWHERE)
    return Finding.model_validate({
        "what": "disk for the pack", "found": f"{free / 1e9:.1f} GB free in {folder}",
        "expected": f"{required / 1e9:.1f} GB", "remedy": remedy, "level": level,
    })  # fmt: skip


def still_needed(config: SourceConfig) -> float:
    """Bytes that a run will still write to the cache: archive and pack, less what lies there already."""
    count, archive = patches_of(config), KAGGLE_ARCHIVE if config.kind == "kaggle" else 0.0
    if count in packed_counts():
        return BESIDE
    if config.kind == "kaggle" and any((cache_dir() / "downloads").glob("*.zip")):
        archive = 0.0
    return BESIDE + archive + count * PATCH_BYTES


def patches_of(config: SourceConfig) -> int:
    """About how many patches a source has; 0 where only packing finds out."""
    path = Path(config.path).expanduser()
    count = {"sample": SAMPLE_COUNT, "kaggle": KAGGLE_PATCHES}.get(config.kind, 0)
    if config.kind == "path" and path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            count = len(archive.namelist())
    return min(count, config.max_patches) if config.max_patches and count else config.max_patches or count


def packed_counts() -> set[int]:
    """How many patches each pack in the cache has."""
    found = set()
    for record in (cache_dir() / "packs").glob("[!.]*/pack.json"):
        try:
            found.add(int(json.loads(record.read_bytes())["count"]))
        except (OSError, ValueError, KeyError):
            continue
    return found


def store(config: TrainConfig) -> Finding:
    """Whether the store can be read and written, and keeps its word on conditions (which promotion rests on)."""
    address, expected = (
        resolve_store_uri(config.store.uri),
        "a store that can be written to and keeps conditional writes",
    )
    try:
        kept = open_store(address)
        conditions = probe(kept)
    except PcamError as error:
        return Finding(what="store", found=str(error), expected=expected, level="failed",
                       remedy="set --store or PCAM_STORE, and for a bucket AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, "
                       "AWS_SECRET_ACCESS_KEY", passing=isinstance(error, StoreUnavailable))  # fmt: skip
    if conditions.kept:
        return Finding(what="store", found=kept.uri, expected=expected)
    ignored = " and ".join(name for name, held in (("If-None-Match", conditions.absent), ("If-Match", conditions.match))
                           if not held)  # fmt: skip
    return Finding(what="store", found=f"{kept.uri} does not keep {ignored}", expected=expected, level="warning",
                   remedy="runs are published there, but promotion needs another store")  # fmt: skip
