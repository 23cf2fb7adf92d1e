"""Verification of a pack against its digests."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.data.image import PATCH_BYTES, pixel_digest
from pcam_model.data.pack import PATCHES, Pack, load_patches, load_table, open_pack, table_digest

CHUNK = 64
THREADS = 2 * (os.cpu_count() or 1)  # some read from the disk while others compute


def verify_pack_digest(folder: Path, digest: str) -> None:
    """Read the whole pack in a folder. Raises SourceError where it is damaged, or has another digest."""
    pack = open_pack(folder)
    if pack.digest != digest:
        raise SourceError(f"{folder}: the pack's digest is {pack.digest[:12]}, expected {digest[:12]}")
    verify_pack(pack)


def verify_pack(pack: Pack) -> None:
    """Compare every patch with its digest, and the table with the pack's. Raises SourceError where one differs."""
    table = load_table(pack)
    header_bytes = (Path(pack.folder) / PATCHES).stat().st_size - load_patches(pack).nbytes
    if table_digest(table) != pack.digest:
        raise SourceError(f"{pack.folder}: the table is not the one that was packed; delete the folder and pack again")
    digests = table["pixels"].tolist()
    with (Path(pack.folder) / PATCHES).open("rb") as file, ThreadPoolExecutor(THREADS) as pool:

        def damaged_rows(first: int) -> list[int]:
            offset = header_bytes + first * PATCH_BYTES
            content = memoryview(os.pread(file.fileno(), CHUNK * PATCH_BYTES, offset))
            expected = digests[first : first + CHUNK]
            actual = (pixel_digest(content[i * PATCH_BYTES :][:PATCH_BYTES]) for i in range(len(expected)))
            return [first + i for i, digest in enumerate(actual) if digest != expected[i]]

        damaged = [row for rows in pool.map(damaged_rows, range(0, pack.count, CHUNK)) for row in rows]
    if damaged:
        raise SourceError(
            f"{pack.folder}: {len(damaged):,} of {pack.count:,} patches are not those that were packed (first: row "
            f"{damaged[0]}); the disk or a copy damaged them; delete the folder and pack again"
        )
