"""The image files of an archive or folder as a source of patches, and what to say where it holds none with labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_model.data.container import Container
from pcam_model.data.file_names import LABELS_FILE, TABLE_FORMATS, is_image, suffix_of
from pcam_model.data.image import Decoder, Patch, PatchError
from pcam_model.data.patch_source import PatchSource, patch_or_error

FOLDER_FORMATS = frozenset({"h5", "hdf5", "parquet"})
UNREAD_FORMATS = frozenset({"npz", "npy", "arrow", "tfrecord", "pt", "pkl", "mat", "svs", "ndpi", "mrxs", "dcm"})
MAX_FOLDERS = 6  # in messages


class ContainerPatches(PatchSource):
    """Patches that are the image files of a container."""

    max_threads = 8  # more would wait for the interpreter's lock, which a patch holds for about a tenth of its time

    def __init__(self, container: Container, table: pd.DataFrame) -> None:
        """`table`: columns id, label, slide, origin and member, the file's name."""
        self.container, self.table, self.decode = container, table, Decoder()
        self.members: list[str] = table["member"].tolist()

    def close(self) -> None:
        """Close the archive."""
        self.container.close()

    def patch(self, row: int) -> Patch:
        """The patch in this row: uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
        return self.decode(self.container.read(self.members[row]))

    def patches(self, rows: Sequence[int]) -> list[Patch | PatchError]:
        """The patch in each of these rows, or why there is none. Thread-safe."""
        contents = self.container.read_block([self.members[row] for row in rows])
        if contents is None:
            return super().patches(rows)
        return [patch_or_error(self.decode, content) for content in contents]


def make_table(
    ids: Sequence[str],
    labels: Sequence[int | None],
    origins: Sequence[str],
    members: Sequence[str],
    domains: Sequence[str | None] | None = None,
) -> pd.DataFrame:
    """A source's table: columns id, label (Int8), slide (None), origin and member, and domain where it is given."""
    table = pd.DataFrame(
        {
            "id": pd.Series(ids, dtype=object),
            "label": pd.array(list(labels), dtype="Int8"),
            "member": pd.Series(members, dtype=object),
            "slide": np.full(len(ids), None, dtype=object),
            "origin": pd.Series(origins, dtype=object),
        }
    )
    return table if domains is None else table.assign(domain=pd.Series(domains, dtype=object))


def no_labels_message(path: Path, names: Sequence[str]) -> str:
    """Why no labels are found in an archive or folder, and what to do."""
    if not names:
        return f"{path}: it is empty; expected train/ID.tif images and {LABELS_FILE}; give another path"
    start = f"{path}: there is no {LABELS_FILE} among its {len(names):,} files"
    images = [name for name in names if is_image(name)]
    if not images:
        return start + _no_images_hint(names)
    folders = sorted({name.rpartition("/")[0].rpartition("/")[2] for name in images} - {""})
    if (path.parent / LABELS_FILE).is_file():
        return f"{start}; it lies beside this folder: give {path.parent}"
    if tables := [name for name in names if suffix_of(name) in TABLE_FORMATS]:
        return (
            f"{start}; if {tables[0]} holds the labels, save it as {LABELS_FILE} (a CSV) with the columns id (an "
            "image's name without its ending) and label (0 or 1)"
        )
    if not folders:
        return f"{start}; add it with the columns id,label, or move the images into two folders, 0 and 1"
    return (
        f"{start}, and the folders of its images ({', '.join(folders[:MAX_FOLDERS])}) name no class; add it with the "
        "columns id,label, or name the folders of both classes, 0 first, with source.classes=[NORMAL,TUMOUR]"
    )


def _no_images_hint(names: Sequence[str]) -> str:
    for name in names:
        if suffix_of(name.removesuffix(".gz")) in FOLDER_FORMATS:
            return f", but {name}; HDF5 and parquet are read from folders: unpack the archive, and give the folder"
        if suffix_of(name) in UNREAD_FORMATS:
            return f", but {name}, which is not read; save its patches as PNG files in two folders, 0 and 1"
    return f" and no image; expected train/ID.tif images and {LABELS_FILE} with the columns id,label; give another path"
