"""The files of a pack: patches.npy, patches.parquet, and pack.json, which has the digests of all three."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pcam_model.core.errors import SourceError
from pcam_model.core.files import write_atomic
from pcam_model.core.parsing import read_record
from pcam_model.core.pixel_size import PCAM_MPP
from pcam_model.core.schema import Record
from pcam_model.data.image import PACK_RECORD, PATCH_SIZE
from pcam_model.data.pack_identity import VERSION
from pcam_model.data.read_table import read_table

PATCHES, TABLE, RECORD = "patches.npy", "patches.parquet", PACK_RECORD
DIGEST_COLUMNS = ("id", "label", "slide", "origin", "pixels")
REMEDY = "delete the folder and pack again"


class PackInfo(Record):
    """Digest, counts and colours of a pack, on this machine or in a store."""

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


class Pack(PackInfo):
    """A pack of patches on this machine."""

    folder: str
    """The folder of patches.npy, patches.parquet and pack.json."""


class PackRecord(PackInfo):
    """The content of pack.json."""

    version: int
    """Of the pack's files."""
    bytes: dict[str, int]
    """The size of each of the other files."""
    table_sha256: str = ""
    """Of patches.parquet; empty in a pack of an earlier pcam."""
    quarantine: tuple[dict[str, str], ...] = ()
    """Id and reason of each image that was set aside."""
    sha256: str = ""
    """Over the other keys; empty in a pack of an earlier pcam."""

    def signed(self) -> "PackRecord":
        """The record with its own digest."""
        content = json.dumps(self.model_dump(mode="json", exclude={"sha256"}), sort_keys=True)
        return self.model_copy(update={"sha256": hashlib.sha256(content.encode()).hexdigest()})


def write_pack_record(folder: Path, record: PackRecord) -> None:
    """Write pack.json, with its own digest."""
    write_atomic(folder / RECORD, record.signed().model_dump_json(indent=1).encode())


def read_pack_record(folder: Path) -> PackRecord:
    """The content of pack.json. Raises SourceError where it is missing or damaged."""
    try:
        record = read_record(PackRecord, folder / RECORD, remedy=REMEDY, error=SourceError)
    except OSError as error:
        raise SourceError(f"{folder}: there is no complete pack here ({type(error).__name__}); {REMEDY}") from error
    if record.sha256 and record != record.signed():
        raise SourceError(f"{folder / RECORD} is not as it was written: its digest differs; {REMEDY}")
    return record


def open_pack(folder: Path) -> Pack:
    """The pack in this folder, by its record and the sizes of its files. Raises SourceError where it is not complete.

    `pack_verification.verify_pack` reads the whole pack.
    """
    record = read_pack_record(folder)
    try:
        sizes = {name: (folder / name).stat().st_size for name in (PATCHES, TABLE)}
    except OSError as error:
        raise SourceError(f"{folder}: there is no complete pack here ({type(error).__name__}); {REMEDY}") from error
    if record.version != VERSION or sizes != record.bytes:
        raise SourceError(
            f"{folder}: the pack's version is {record.version} and its files have {sizes} bytes; expected version "
            f"{VERSION} and {record.bytes}; {REMEDY}"
        )
    return Pack(folder=str(folder), **record.model_dump(include=set(PackInfo.model_fields)))


def read_quarantine(pack: Pack) -> list[dict[str, str]]:
    """Id and reason of each image that was set aside."""
    return list(read_pack_record(Path(pack.folder)).quarantine)


def load_patches(pack: Pack) -> NDArray[np.uint8]:
    """The pack's patches, uint8 (N, 96, 96, 3): a read-only memory map.

    Raises:
        SourceError: the file holds anything else.
    """
    expected = (pack.count, PATCH_SIZE, PATCH_SIZE, 3)
    try:
        patches: NDArray[np.uint8] = np.load(Path(pack.folder) / PATCHES, mmap_mode="r", allow_pickle=False)
        found = f"{patches.dtype} {patches.shape}"
        if patches.shape == expected and patches.dtype == np.uint8 and patches.flags.c_contiguous:
            return patches
    except Exception as error:  # NumPy reads the header as Python: SyntaxError, TokenError, EOFError, ValueError ...
        found = f"no array ({type(error).__name__})"
    raise SourceError(f"{pack.folder}: {PATCHES} holds {found}; expected uint8 {expected}; {REMEDY}")


def load_table(pack: Pack) -> pd.DataFrame:
    """The pack's table, a row a patch.

    Columns: id, label (Int8, NA: none), slide (or None), origin (the source's own split), pixels (digest), pixel_std
    (of its pixels, 0..1), domain (centre or scanner, or None).

    Raises:
        SourceError: the file is damaged.
    """
    columns = [*DIGEST_COLUMNS, "pixel_std"]
    table = read_table(Path(pack.folder) / TABLE, columns, optional=["domain"], remedy=REMEDY, error=SourceError)
    for name in ("slide", "domain"):
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    return table.astype({"label": "Int8"})


def table_digest(table: pd.DataFrame) -> str:
    """SHA-256 over every row's id, label, slide, origin and pixel digest, and domain where there are any."""
    total = hashlib.sha256()
    has_domains = "domain" in table and table["domain"].notna().any()
    names = (*DIGEST_COLUMNS, *(["domain"] if has_domains else []))
    columns = (table[name].astype(object).where(table[name].notna(), "") for name in names)
    for row in zip(*columns, strict=True):
        total.update("\0".join(map(str, row)).encode() + b"\n")
    return total.hexdigest()
