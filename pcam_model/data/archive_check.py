"""Whether a Kaggle-layout archive is whole: every member's checksum, and the counts of patches."""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.data.container import LARGEST_TABLE, open_container
from pcam_model.data.image import PatchError
from pcam_model.data.kaggle_layout import KagglePatches


def verify_archive(path: Path, labelled: int, unlabelled: int) -> None:
    """Read every member against its checksum and count the patches. Raises SourceError for what is not whole."""
    with closing(KagglePatches(path)) as patches:
        total = len(patches.table)
    found = int(patches.table["label"].notna().sum())
    if (found, total - found) != (labelled, unlabelled):
        raise SourceError(
            f"{path}: it holds {found:,} labelled and {total - found:,} unlabelled patches, where "
            f"{labelled:,} and {unlabelled:,} belong; it is not the whole set, download it again"
        )
    with closing(open_container(path)) as container, ThreadPoolExecutor(os.cpu_count()) as pool:

        def broken(name: str) -> str | None:
            try:
                container.read(name, LARGEST_TABLE)
            except PatchError as error:
                return f"{name}: {error}"
            return None

        bad = [fault for fault in pool.map(broken, container.names()) if fault]
    if bad:
        raise SourceError(f"{path}: {len(bad):,} members are broken (first: {bad[0]}); download the archive again")
