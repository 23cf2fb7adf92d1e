"""The pack: all patches as one uint8 array on disk, with their table and a digest."""

import hashlib
import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.atomic_dir import build_dir
from pcam_model.core.errors import SourceError
from pcam_model.core.files import fsync_file, write_atomic
from pcam_model.core.pixel_size import PCAM_MPP
from pcam_model.core.schema import Record
from pcam_model.core.write_guard import require_disk_space, write_guard
from pcam_model.data.image import PACK_RECORD, PATCH_BYTES, SIZE
from pcam_model.data.layouts import open_patches
from pcam_model.data.pack_identity import VERSION, pack_name
from pcam_model.data.pack_writer import OnProgress, PackContents, write_patches
from pcam_model.data.patch_source import PatchSource
from pcam_model.data.sample import SamplePatches
from pcam_model.data.source import SAMPLE_COUNT, Archive, SourceConfig, pixel_size
from pcam_model.data.subset import add_slides, select_rows

PATCHES, TABLE, RECORD = "patches.npy", "patches.parquet", PACK_RECORD
DIGEST_COLUMNS = ("id", "label", "slide", "origin", "pixels")


class Pack(Record):
    """A pack of patches on this machine."""

    folder: str
    """The folder of patches.npy, patches.parquet and pack.json."""
    digest: str
    """SHA-256 over the table, which holds every patch's own digest: it identifies the content."""
    count: int
    """Patches."""
    labelled: int
    """Patches with a label."""
    mean: tuple[float, float, float]
    """Mean of red, green and blue, 0..1."""
    std: tuple[float, float, float]
    """Standard deviation of the pixels of red, green and blue, 0..1."""
    archive: str = ""
    """SHA-256 of the source that it was made from."""
    quarantined: int = 0
    """Images that were set aside; pack.json lists them, with the reason."""
    source: str
    """The source in a person's words."""
    mpp: float = PCAM_MPP
    """Microns per pixel."""
    mpp_assumed: bool = True
    """Whether that is assumed, since neither the config nor the kind of source tells it."""


def build_pack(
    archive: Archive, config: SourceConfig, packs: Path, seed: int, on_progress: OnProgress | None = None
) -> Pack:
    """The archive's pack below the folder `packs`; built where it is not there already, by one process at a time.

    Memory does not grow with the number of patches. Where it raises, no part of a pack is left.

    Raises:
        SourceError: the patches are bad or missing.
        DiskFullError: they do not fit on the disk.
    """
    target = packs / pack_name(archive, config, seed)
    with write_guard(packs), build_dir(target, is_complete) as folder:
        if folder:
            _write_pack(archive, config, seed, folder, on_progress)
    return with_pixel_size(open_pack(target), config)


def with_pixel_size(pack: Pack, config: SourceConfig) -> Pack:
    """The pack with the pixel size that a config gives; pack.json is rewritten where it has another.

    The pixel size belongs to no digest: the patches, and what is learnt from them, are the same.
    """
    size = pixel_size(config)
    if (pack.mpp, pack.mpp_assumed) == size:
        return pack
    path = Path(pack.folder) / RECORD
    record = json.loads(path.read_bytes()) | {"mpp": size.mpp, "mpp_assumed": size.assumed}
    write_atomic(path, json.dumps(record, indent=1).encode())
    return open_pack(Path(pack.folder))


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a complete pack."""
    return _open_if_complete(folder) is not None


def find_pack(packs: Path, digest: str) -> Pack | None:
    """The complete pack of this digest below `packs`, whatever its folder's name; None where there is none."""
    complete = (_open_if_complete(folder) for folder in sorted(packs.glob("[!.]*")))
    return next((pack for pack in complete if pack and pack.digest == digest), None)


def _open_if_complete(folder: Path) -> Pack | None:
    try:
        return open_pack(folder)
    except SourceError:
        return None


def _open_source(archive: Archive, config: SourceConfig, seed: int, scratch: Path) -> PatchSource:
    """The patches of an archive, by its layout; `scratch` takes what has to be unpacked meanwhile."""
    path = Path(archive.path)
    if not archive.path:
        return SamplePatches(config.max_patches or SAMPLE_COUNT, seed)
    return open_patches(path, scratch, verify_md5=config.verify_md5, classes=config.classes)


def _write_pack(
    archive: Archive, config: SourceConfig, seed: int, folder: Path, on_progress: OnProgress | None
) -> None:
    """Write the three files of a pack into a folder, the record last."""
    source_name = archive.path or archive.source
    with closing(_open_source(archive, config, seed, folder)) as source:
        max_patches = config.max_patches if archive.path else None
        rows = add_slides(select_rows(source.table, max_patches, seed), config.slides)
        _require_both_classes(rows, source_name)
        require_disk_space(folder, len(rows) * PATCH_BYTES, f"a pack of {len(rows):,} patches")
        contents = write_patches(source, rows, folder / PATCHES, config, source_name, on_progress)
    _require_both_classes(contents.table, source_name)
    contents.table.to_parquet(folder / TABLE, index=False)
    fsync_file(folder / TABLE)
    write_atomic(folder / RECORD, json.dumps(_record(archive, config, contents, folder), indent=1).encode())


def _record(archive: Archive, config: SourceConfig, contents: PackContents, folder: Path) -> dict[str, object]:
    """The content of pack.json."""
    size = pixel_size(config)
    return {
        "version": VERSION,
        "digest": table_digest(contents.table),
        "count": len(contents.table),
        "labelled": int(contents.table["label"].notna().sum()),
        "mean": contents.mean,
        "std": contents.std,
        "source": archive.source,
        "mpp": size.mpp,
        "mpp_assumed": size.assumed,
        "archive": archive.sha256,
        "bytes": {name: (folder / name).stat().st_size for name in (PATCHES, TABLE)},
        "quarantined": len(contents.quarantined),
        "quarantine": contents.quarantined,
    }


def _require_both_classes(table: pd.DataFrame, source_name: str) -> None:
    """Raise SourceError where all labels are the same."""
    counts = table["label"].value_counts()
    if counts.empty:
        raise SourceError(f"{source_name}: no labelled patch is left; give images of 96x96 RGB with labels 0 and 1")
    if len(counts) == 1:
        raise SourceError(
            f"{source_name}: all {counts.iloc[0]:,} labelled patches have the label {counts.index[0]}; both 0 and 1 "
            "are needed; add patches of the other class"
        )


def table_digest(table: pd.DataFrame) -> str:
    """SHA-256 over every row's id, label, slide, origin and pixel digest, and domain where there are any."""
    total = hashlib.sha256()
    has_domains = "domain" in table and table["domain"].notna().any()
    names = (*DIGEST_COLUMNS, *(["domain"] if has_domains else []))
    columns = (table[name].astype(object).where(table[name].notna(), "") for name in names)
    for row in zip(*columns, strict=True):
        total.update("\0".join(map(str, row)).encode() + b"\n")
    return total.hexdigest()


def open_pack(folder: Path) -> Pack:
    """The pack in this folder. Raises SourceError where it is not complete."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in record["bytes"]}
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{folder}: there is no complete pack here ({type(error).__name__}); delete the folder and pack again"
        ) from error
    if record["version"] != VERSION or sizes != record["bytes"]:
        raise SourceError(
            f"{folder}: the pack's version is {record['version']} and its files have {sizes} bytes; expected version "
            f"{VERSION} and {record['bytes']}; delete the folder and pack again"
        )
    return Pack(folder=str(folder), **{name: record[name] for name in Pack.model_fields if name in record})


def read_quarantine(pack: Pack) -> list[dict[str, str]]:
    """Id and reason of each image that was set aside."""
    quarantine: list[dict[str, str]] = json.loads((Path(pack.folder) / RECORD).read_bytes())["quarantine"]
    return quarantine


def load_patches(pack: Pack) -> NDArray[np.uint8]:
    """The pack's patches, uint8 (N, 96, 96, 3): a read-only memory map."""
    patches: NDArray[np.uint8] = np.load(Path(pack.folder) / PATCHES, mmap_mode="r", allow_pickle=False)
    if patches.shape != (pack.count, SIZE, SIZE, 3) or patches.dtype != np.uint8:
        raise SourceError(
            f"{pack.folder}: {PATCHES} holds {patches.dtype} {patches.shape}; expected uint8 "
            f"{(pack.count, SIZE, SIZE, 3)}; delete the folder and pack again"
        )
    return patches


def load_table(pack: Pack) -> pd.DataFrame:
    """The pack's table, a row a patch.

    Columns: id, label (Int8, NA: none), slide (or None), origin (the source's own split), pixels (digest), pixel_std
    (of its pixels, 0..1), domain (centre or scanner, or None).
    """
    table = pd.read_parquet(Path(pack.folder) / TABLE)
    table = table if "domain" in table else table.assign(domain=None)
    for name in ("slide", "domain"):
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    return table.astype({"label": "Int8"})
