"""Completeness of a Kaggle-layout archive: every member's checksum, and the counts of patches."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.data.container import MAX_TABLE_BYTES
from pcam_model.data.image import PatchError
from pcam_model.data.kaggle_layout import KagglePatches
from pcam_model.data.open_container import open_container


def verify_archive(path: Path, labelled: int, unlabelled: int) -> None:
    """Read every member against its checksum and count the patches. Raises SourceError where it is not complete."""
    with closing(KagglePatches(path)) as patches:
        total = len(patches.table)
    actual = int(patches.table["label"].notna().sum())
    if (actual, total - actual) != (labelled, unlabelled):
        raise SourceError(
            f"{path}: it holds {actual:,} labelled and {total - actual:,} unlabelled patches; expected {labelled:,} "
            f"and {unlabelled:,}; it is not complete, download it again"
        )
    with closing(open_container(path)) as container, ThreadPoolExecutor(os.cpu_count()) as pool:

        def check_member(name: str) -> str | None:
            try:
                container.read(name, MAX_TABLE_BYTES)
            except PatchError as error:
                return f"{name}: {error}"
            return None

        errors = [error for error in pool.map(check_member, container.names()) if error]
    if errors:
        raise SourceError(
            f"{path}: {len(errors):,} members are broken (first: {errors[0]}); download the archive again"
        )
