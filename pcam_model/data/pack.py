"""The pack: all patches as one uint8 array on disk, with their table and a digest."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SourceError
from pcam_model.core.files import disk_space_guard, refuse_small_disk, sync, write_atomic
from pcam_model.core.schema import Record
from pcam_model.data.atomic_dir import PART, alone
from pcam_model.data.hdf5 import OfficialPatches
from pcam_model.data.image import PATCH_BYTES, SIZE
from pcam_model.data.kaggle_layout import KagglePatches
from pcam_model.data.names import PACK
from pcam_model.data.official_files import holds_official
from pcam_model.data.pack_identity import VERSION, pack_name
from pcam_model.data.pack_writer import PatchSource, stream
from pcam_model.data.sample import SamplePatches
from pcam_model.data.source import SAMPLE_COUNT, Archive, SourceConfig
from pcam_model.data.subset import chosen, with_slides

Progress = Callable[[int, int], None]
PATCHES, TABLE, RECORD = "patches.npy", "patches.parquet", PACK


class Pack(Record):
    """Patches, ready to be used."""

    folder: str
    """Where patches.npy, patches.parquet and pack.json lie."""
    digest: str
    """SHA-256 over the table, which holds every patch's own digest: it names the content."""
    count: int
    """Patches."""
    labelled: int
    """Patches with a label."""
    mean: tuple[float, float, float]
    """Mean of red, green and blue, 0..1."""
    std: tuple[float, float, float]
    """Standard deviation of the pixels of red, green and blue, 0..1."""
    archive: str = ""
    """SHA-256 of what it was made from."""
    quarantined: int = 0
    """Images that were set aside; pack.json lists them, with the reason."""
    source: str
    """Where the patches come from, in a person's words."""


def build_pack(
    archive: Archive, config: SourceConfig, packs: Path, seed: int, progress: Progress | None = None
) -> Pack:
    """Pack the archive's patches into `packs`, or return the whole pack that is there already.

    Memory does not grow with the number of patches. Raises SourceError for bad input, DiskFullError; leaves nothing then.
    """
    target = packs / pack_name(archive, config, seed)
    with disk_space_guard(packs):
        packs.mkdir(parents=True, exist_ok=True)
        with alone(target, whole) as part:
            if part is None:
                return open_pack(target)
            write_pack(archive, config, seed, part, progress)
            os.replace(part, target)
    return open_pack(target)


def whole(folder: Path) -> bool:
    """Whether a pack lies there whole."""
    return opened(folder) is not None


def opened(folder: Path) -> Pack | None:
    """The pack in this folder, or None where it is not whole."""
    try:
        return open_pack(folder)
    except SourceError:
        return None


def find_pack(packs: Path, digest: str) -> Pack | None:
    """A whole pack of this digest among those that lie in `packs`, under whatever name, or None."""
    found = (opened(folder) for folder in sorted(packs.glob("[!.]*")) if folder.suffix != PART)
    return next((pack for pack in found if pack and pack.digest == digest), None)


def open_source(archive: Archive, config: SourceConfig, seed: int, scratch: Path) -> PatchSource:
    """The patches of an archive, by its layout; what has to be unpacked meanwhile goes to `scratch`."""
    path = Path(archive.path)
    if not archive.path:
        return SamplePatches(config.max_patches or SAMPLE_COUNT, seed)
    if holds_official(path):
        return OfficialPatches(path, scratch, published=config.verify_md5)
    return KagglePatches(path)


def write_pack(archive: Archive, config: SourceConfig, seed: int, part: Path, progress: Progress | None) -> None:
    """Write the three files of a pack into a folder, the record last."""
    with closing(open_source(archive, config, seed, part)) as source:
        rows = with_slides(chosen(source.table, config.max_patches if archive.path else None, seed), config.slides)
        both_classes(archive, rows)
        refuse_small_disk(part, len(rows) * PATCH_BYTES, f"a pack of {len(rows):,} patches")
        done = stream(source, rows, part / PATCHES, config, archive.path or archive.source, progress)
    both_classes(archive, done.table)
    done.table.to_parquet(part / TABLE, index=False)
    sync(part / TABLE)
    labelled = int(done.table["label"].notna().sum())
    record = {
        "version": VERSION,
        "digest": table_digest(done.table),
        "count": len(done.table),
        "labelled": labelled,
        "mean": done.mean,
        "std": done.std,
        "source": archive.source,
        "archive": archive.sha256,
        "bytes": {name: (part / name).stat().st_size for name in (PATCHES, TABLE)},
        "quarantined": len(done.quarantined),
        "quarantine": done.quarantined,
    }
    write_atomic(part / RECORD, json.dumps(record, indent=1).encode())


def both_classes(archive: Archive, table: pd.DataFrame) -> None:
    """Raise SourceError where only one class is to be seen."""
    counts = table["label"].value_counts()
    if len(counts) == 1:
        raise SourceError(
            f"{archive.path or archive.source}: all {counts.iloc[0]:,} labelled patches have the label "
            f"{counts.index[0]}; both 0 and 1 are needed; add patches of the other class"
        )


def table_digest(rows: pd.DataFrame) -> str:
    """SHA-256 over every row's id, label, slide, origin and pixel digest, in their order."""
    total = hashlib.sha256()
    columns = (
        rows[name].astype(object).where(rows[name].notna(), "") for name in ("id", "label", "slide", "origin", "pixels")
    )
    for row in zip(*columns, strict=True):
        total.update("\0".join(map(str, row)).encode() + b"\n")
    return total.hexdigest()


def open_pack(folder: Path) -> Pack:
    """The pack in this folder. Raises SourceError when it is not whole."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in record["bytes"]}
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{folder}: no whole pack lies here ({type(error).__name__}); delete the folder and pack again"
        ) from error
    if record["version"] != VERSION or sizes != record["bytes"]:
        raise SourceError(
            f"{folder}: the pack's version is {record['version']} and its files have {sizes} bytes; expected version "
            f"{VERSION} and {record['bytes']}; delete the folder and pack again"
        )
    return Pack(folder=str(folder), **{name: record[name] for name in Pack.model_fields if name != "folder"})


def quarantine(pack: Pack) -> list[dict[str, str]]:
    """The images that were set aside: id and reason of each."""
    listed: list[dict[str, str]] = json.loads((Path(pack.folder) / RECORD).read_bytes())["quarantine"]
    return listed


def patches(pack: Pack) -> NDArray[np.uint8]:
    """The pack's patches, uint8 (N, 96, 96, 3): a read-only memory map."""
    found = np.load(Path(pack.folder) / PATCHES, mmap_mode="r", allow_pickle=False)
    if found.shape != (pack.count, SIZE, SIZE, 3) or found.dtype != np.uint8:
        raise SourceError(
            f"{pack.folder}: {PATCHES} holds {found.dtype} {found.shape}; expected uint8 "
            f"{(pack.count, SIZE, SIZE, 3)}; delete the folder and pack again"
        )
    result: NDArray[np.uint8] = found
    return result


def table(pack: Pack) -> pd.DataFrame:
    """A row a patch: id, label (Int8, NA: none), slide (or None), origin, pixels (digest), spread (their std, 0..1)."""
    rows = pd.read_parquet(Path(pack.folder) / TABLE)
    rows["slide"] = rows["slide"].astype(object).where(rows["slide"].notna(), None)
    return rows.astype({"label": "Int8"})
