"""Checks of the cache, its disk and the store."""

import shutil
import zipfile
from pathlib import Path

from pcam_model.check.findings import Finding
from pcam_model.config import TrainConfig
from pcam_model.core.errors import PcamError
from pcam_model.core.parsing import parse_json
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.core.write_guard import nearest_existing, require_writable, temporary_dir
from pcam_model.data.image import PATCH_BYTES
from pcam_model.data.source import SAMPLE_COUNT, SourceConfig
from pcam_model.registry.backends.base import StoreUnavailable
from pcam_model.registry.capabilities import StoreCapabilities, probe
from pcam_model.registry.factory import open_store

KAGGLE_PATCHES, KAGGLE_ARCHIVE_BYTES = 277_483, 7.8e9  # of the labelled and the unlabelled patches together
CACHE_FOLDERS = ("downloads", "packs", "work")  # which a run writes to
SCRATCH_BYTES = 2e9  # a run's checkpoints and pictures


def check_cache() -> Finding:
    """Whether the cache can be written to, and what another user may have made in it."""
    expected = "a folder that can be written to"
    try:
        folder = cache_dir()
        for each in (folder, *(folder / name for name in CACHE_FOLDERS)):
            require_writable(each)
    except PcamError as error:
        return Finding.of_error("cache", error, expected)
    return Finding(what="cache", found=str(folder), expected=expected)


def check_temporary() -> Finding:
    """Whether there is a folder for temporary files."""
    expected = "a folder that can be written to"
    try:
        with temporary_dir("check") as folder:
            return Finding(what="temporary files", found=str(folder.parent), expected=expected)
    except PcamError as error:
        return Finding.of_error("temporary files", error, expected)


def check_disk(config: TrainConfig) -> Finding:
    """Whether the cache's disk has room for the pack and the archive that it is made from."""
    folder = nearest_existing(cache_dir())
    free, required = shutil.disk_usage(folder).free, required_bytes(config.source)
    what, found = "disk for the pack", f"{free / 1e9:.1f} GB free in {folder}"
    expected = f"{required / 1e9:.1f} GB"
    if free >= required:
        return Finding(what=what, found=found, expected=expected)
    remedy = "put PCAM_CACHE on a larger disk, or free some room there"
    return Finding(what=what, found=found, expected=expected, remedy=remedy, level="failed")


def required_bytes(config: SourceConfig) -> float:
    """Bytes that a run will write to the cache: archive and pack, less what is there already."""
    count, archive = count_patches(config), KAGGLE_ARCHIVE_BYTES if config.kind == "kaggle" else 0.0
    if count in packed_counts():
        return SCRATCH_BYTES
    if config.kind == "kaggle" and any((cache_dir() / "downloads").glob("*.zip")):
        archive = 0.0
    return SCRATCH_BYTES + archive + count * PATCH_BYTES


def count_patches(config: SourceConfig) -> int:
    """About how many patches a source has; 0 where that is known only after packing."""
    path = Path(config.path).expanduser()
    count = {"sample": SAMPLE_COUNT, "kaggle": KAGGLE_PATCHES}.get(config.kind, 0)
    if config.kind == "path" and path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            count = len(archive.namelist())
    return min(count, config.max_patches) if config.max_patches and count else config.max_patches or count


def packed_counts() -> set[int]:
    """The numbers of patches of the packs in the cache."""
    counts = set()
    for record in (cache_dir() / "packs").glob("[!.]*/pack.json"):
        try:
            counts.add(int(parse_json(record.read_bytes(), record)["count"]))
        except (OSError, ValueError, TypeError, KeyError, PcamError):
            continue
    return counts


def check_store(config: TrainConfig) -> Finding:
    """Whether the store can be read and written, and honours conditional writes, which promotion needs."""
    uri, expected = resolve_store_uri(config.store.uri), "a store that can be written to and honours conditional writes"
    try:
        store = open_store(uri)
        capabilities = probe(store)
    except PcamError as error:
        return Finding(
            what="store",
            found=str(error),
            expected=expected,
            remedy="set --store or PCAM_STORE, and for a bucket AWS_ENDPOINT_URL_S3, AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY",
            level="failed",
            transient=isinstance(error, StoreUnavailable),
        )
    if capabilities.conditional_writes:
        return Finding(what="store", found=store.uri, expected=expected)
    return Finding(
        what="store",
        found=f"{store.uri} ignores {_ignored_conditions(capabilities)}",
        expected=expected,
        remedy="runs are published there, but promotion needs another store",
        level="warning",
    )


def _ignored_conditions(capabilities: StoreCapabilities) -> str:
    honoured = {"If-None-Match": capabilities.if_absent, "If-Match": capabilities.if_match}
    return " and ".join(name for name, is_honoured in honoured.items() if not is_honoured)
