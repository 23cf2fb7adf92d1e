"""Whether a pack's patches are still those that were packed."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.data.image import PATCH_BYTES, pixel_digest
from pcam_model.data.pack import PATCHES, Pack, open_pack, patches, table, table_digest

CHUNK = 64
THREADS = 2 * (os.cpu_count() or 1)  # some read from the disk while others compute


def verify_as(digest: str, folder: Path) -> None:
    """Read the pack in a folder wholly. Raises SourceError where it is not whole, or not the one of this digest."""
    pack = open_pack(folder)
    if pack.digest != digest:
        raise SourceError(f"{folder}: the pack's digest is {pack.digest[:12]}, and {digest[:12]} was asked for")
    verify_pack(pack)


def verify_pack(pack: Pack) -> None:
    """Read every patch and compare it with its digest, and the table with the pack's. Raises SourceError."""
    rows = table(pack)
    start = (Path(pack.folder) / PATCHES).stat().st_size - patches(pack).nbytes
    if table_digest(rows) != pack.digest:
        raise SourceError(f"{pack.folder}: the table is not the one that was packed; delete the folder and pack again")
    known = rows["pixels"].tolist()
    with (Path(pack.folder) / PATCHES).open("rb") as file, ThreadPoolExecutor(THREADS) as pool:

        def wrong(first: int) -> list[int]:
            content = memoryview(os.pread(file.fileno(), CHUNK * PATCH_BYTES, start + first * PATCH_BYTES))
            found = (pixel_digest(content[i * PATCH_BYTES :][:PATCH_BYTES]) for i in range(len(known[first:][:CHUNK])))
            return [first + i for i, digest in enumerate(found) if digest != known[first + i]]

        bad = [row for rows in pool.map(wrong, range(0, pack.count, CHUNK)) for row in rows]
    if bad:
        raise SourceError(
            f"{pack.folder}: {len(bad):,} of {pack.count:,} patches are not those that were packed (first: row "
            f"{bad[0]}); the disk or a copy damaged them; delete the folder and pack again"
        )
