"""Verification of a pack against its digests."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.core.files import sha256
from pcam_model.core.log import log
from pcam_model.data.image import PATCH_BYTES, pixel_digest
from pcam_model.data.pack_files import (
    PATCHES,
    REMEDY,
    TABLE,
    Pack,
    load_patches,
    load_table,
    open_pack,
    read_pack_record,
    table_digest,
)

CHUNK = 64
THREADS = 2 * (os.cpu_count() or 1)  # some read from the disk while others compute


def verified_pack(folder: Path, next_step: str) -> Pack | None:
    """The pack in a folder, which is read whole; None where there is none or it is damaged, which is logged.

    Args:
        folder: the pack's folder.
        next_step: what is done where it is damaged, for the log, as in "It is packed again".
    """
    if not folder.exists():
        return None
    start = time.monotonic()
    try:
        pack = open_pack(folder)
        verify_pack(pack)
    except SourceError as error:
        log.warning("%s. %s", str(error).removesuffix(f"; {REMEDY}"), next_step)
        return None
    log.debug("Pack: %s patches verified in %.1f s", f"{pack.count:,}", time.monotonic() - start)
    return pack


def verify_pack_digest(folder: Path, digest: str) -> None:
    """Read the whole pack in a folder. Raises SourceError where it is damaged, or has another digest."""
    pack = open_pack(folder)
    if pack.digest != digest:
        raise SourceError(f"{folder}: the pack's digest is {pack.digest[:12]}, expected {digest[:12]}; {REMEDY}")
    verify_pack(pack)


def verify_pack(pack: Pack) -> None:
    """Compare every patch with its digest, and the table with the pack's. Raises SourceError where one differs."""
    folder = Path(pack.folder)
    try:
        _verify_table(pack, folder)
        damaged = _damaged_rows(pack, folder / PATCHES)
    except OSError as error:
        raise SourceError(f"{folder}: the disk does not give the pack back ({error.strerror}); {REMEDY}") from error
    if damaged:
        raise SourceError(
            f"{folder}: {len(damaged):,} of {pack.count:,} patches are not those that were packed (first: row "
            f"{damaged[0]}); the disk or a copy damaged them; {REMEDY}"
        )


def _verify_table(pack: Pack, folder: Path) -> None:
    expected = read_pack_record(folder).table_sha256
    is_same = not expected or sha256(folder / TABLE) == expected
    if not is_same or table_digest(load_table(pack)) != pack.digest:
        raise SourceError(f"{folder}: {TABLE} is not the one that was packed; {REMEDY}")


def _damaged_rows(pack: Pack, path: Path) -> list[int]:
    """The rows whose pixels have another digest than the table's."""
    digests = load_table(pack)["pixels"].tolist()
    header_bytes = path.stat().st_size - load_patches(pack).nbytes
    with path.open("rb") as file, ThreadPoolExecutor(THREADS) as pool:

        def damaged_rows(first: int) -> list[int]:
            offset = header_bytes + first * PATCH_BYTES
            content = memoryview(os.pread(file.fileno(), CHUNK * PATCH_BYTES, offset))
            expected = digests[first : first + CHUNK]
            actual = (pixel_digest(content[i * PATCH_BYTES :][:PATCH_BYTES]) for i in range(len(expected)))
            return [first + i for i, digest in enumerate(actual) if digest != expected[i]]

        return [row for rows in pool.map(damaged_rows, range(0, pack.count, CHUNK)) for row in rows]
