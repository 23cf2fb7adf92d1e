"""The pack of a source: all patches as one uint8 array on disk, with their table and a digest; built once."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pandas as pd

from pcam_model.core.atomic_dir import build_dir
from pcam_model.core.errors import SourceError
from pcam_model.core.files import fsync_file, sha256
from pcam_model.core.write_guard import require_disk_space, write_guard
from pcam_model.data.image import PATCH_BYTES
from pcam_model.data.layouts import open_patches
from pcam_model.data.pack_files import (
    PATCHES,
    RECORD,
    TABLE,
    Pack,
    PackRecord,
    load_patches,
    load_table,
    open_pack,
    read_pack_record,
    read_quarantine,
    table_digest,
    write_pack_record,
)
from pcam_model.data.pack_identity import VERSION, pack_name
from pcam_model.data.pack_verification import verified_pack
from pcam_model.data.pack_writer import OnProgress, PackContents, write_patches
from pcam_model.data.patch_source import PatchSource
from pcam_model.data.sample import SamplePatches
from pcam_model.data.source import SAMPLE_COUNT, Archive, SourceConfig, pixel_size
from pcam_model.data.subset import add_slides, select_rows

OpenSlides = Callable[[Archive, SourceConfig, int], PatchSource]
"""Archive, config and seed -> the patches of slides."""

__all__ = [
    "PATCHES",
    "RECORD",
    "TABLE",
    "Pack",
    "build_pack",
    "find_pack",
    "load_patches",
    "load_table",
    "open_pack",
    "read_quarantine",
    "with_pixel_size",
]


def build_pack(
    archive: Archive,
    config: SourceConfig,
    packs: Path,
    seed: int,
    on_progress: OnProgress | None = None,
    open_slides: OpenSlides | None = None,
) -> Pack:
    """The archive's pack below the folder `packs`; built where it is not there whole, by one process at a time.

    One that is there is read whole and compared with its digests; a damaged one is logged and built again.
    Memory does not grow with the number of patches. Where it raises, no part of a pack is left.

    Args:
        archive: the source.
        config: its config.
        packs: the folder of packs.
        seed: of what is drawn.
        on_progress: called after each batch of patches.
        open_slides: cuts patches from slides, as `slides.slide_source.open_slide_patches`.

    Raises:
        SourceError: the patches are bad or missing.
        DiskFullError: they do not fit on the disk.
    """
    target = packs / pack_name(archive, config, seed)

    def is_intact(folder: Path) -> bool:
        return verified_pack(folder, "It is packed again") is not None

    with write_guard(packs), build_dir(target, is_intact) as folder:
        if folder:
            _write_pack(archive, config, seed, folder, on_progress, open_slides)
    return with_pixel_size(open_pack(target), config)


def with_pixel_size(pack: Pack, config: SourceConfig) -> Pack:
    """The pack with the pixel size that a config gives; pack.json is rewritten where it has another.

    The pixel size belongs to no digest: the patches, and what is learnt from them, are the same.
    """
    size = pixel_size(config)
    if (pack.mpp, pack.mpp_assumed) == size:
        return pack
    folder = Path(pack.folder)
    record = read_pack_record(folder)
    write_pack_record(folder, record.model_copy(update={"mpp": size.mpp, "mpp_assumed": size.assumed}))
    return open_pack(folder)


def find_pack(packs: Path, digest: str) -> Pack | None:
    """The pack of this digest below `packs`, whatever its folder's name, which is read whole; None where there is none.

    A damaged one is logged and removed.
    """
    for folder in sorted(packs.glob("[!.]*")):
        try:
            is_same = open_pack(folder).digest == digest
        except SourceError:
            continue
        if is_same and (pack := verified_pack(folder, "It is removed")):
            return pack
        if is_same:
            shutil.rmtree(folder, ignore_errors=True)
    return None


def _open_source(
    archive: Archive, config: SourceConfig, seed: int, scratch: Path, open_slides: OpenSlides | None
) -> PatchSource:
    """The patches of an archive, by its layout; `scratch` takes what has to be unpacked meanwhile."""
    path = Path(archive.path)
    if config.kind == "slides" and open_slides:
        return open_slides(archive, config, seed)
    if not archive.path:
        return SamplePatches(config.max_patches or SAMPLE_COUNT, seed)
    return open_patches(path, scratch, verify_md5=config.verify_md5, classes=config.classes)


def _write_pack(
    archive: Archive,
    config: SourceConfig,
    seed: int,
    folder: Path,
    on_progress: OnProgress | None,
    open_slides: OpenSlides | None,
) -> None:
    """Write the three files of a pack into a folder, the record last."""
    source_name = archive.path or archive.source
    with closing(_open_source(archive, config, seed, folder, open_slides)) as source:
        max_patches = config.max_patches if archive.path else None
        rows = add_slides(select_rows(source.table, max_patches, seed), config.slides)
        _require_both_classes(rows, source_name)
        require_disk_space(folder, len(rows) * PATCH_BYTES, f"a pack of {len(rows):,} patches")
        contents = write_patches(source, rows, folder / PATCHES, config, source_name, on_progress)
    _require_both_classes(contents.table, source_name)
    contents.table.to_parquet(folder / TABLE, index=False)
    fsync_file(folder / TABLE)
    write_pack_record(folder, _record(archive, config, contents, folder))


def _record(archive: Archive, config: SourceConfig, contents: PackContents, folder: Path) -> PackRecord:
    """The content of pack.json."""
    size = pixel_size(config)
    return PackRecord.model_validate(
        {
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
            "table_sha256": sha256(folder / TABLE),
            "quarantined": len(contents.quarantined),
            "quarantine": contents.quarantined,
        }
    )


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
