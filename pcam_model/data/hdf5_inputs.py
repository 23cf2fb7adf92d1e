"""Patches to predict that are the rows of an HDF5 file in PCam's layout; labels are not needed."""

import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from pcam_model.core.errors import SourceError, require_package
from pcam_model.core.write_guard import write_guard
from pcam_model.data.hdf5_names import (
    PREFIX,
    dataset_of,
    id_prefix,
    in_split_order,
    is_hdf5,
    is_packed,
    list_files,
    stem_of,
)
from pcam_model.data.image import PATCH_BYTES, ImageName, Patch
from pcam_model.data.official_files import gunzip

if TYPE_CHECKING:
    from pcam_model.data.hdf5 import Hdf5Patches

MAX_PATCHES = 1 << 20  # in a packed file; PCam's largest has 262,144


class Hdf5Images:
    """The dataset `x` of a file; a packed one (.gz) is unpacked for as long as it is used."""

    def __init__(self, path: Path, file: str, scratch: Path | None) -> None:
        """Open the file; `file` is its name in prediction tables, `scratch` the folder where it is unpacked.

        Raises:
            SourceError: it is damaged, or holds no patches.
        """
        with require_package("an HDF5 file"):
            from pcam_model.data.hdf5 import Hdf5Patches

        self.file, self.id_prefix = file, id_prefix(path)  # the same ids as in a pack of these files
        self.patches = self._unpack(path, scratch) if is_packed(path) else Hdf5Patches(path)
        weakref.finalize(self, self.patches.close)

    def _unpack(self, path: Path, scratch: Path | None) -> "Hdf5Patches":
        """Unpack into a temporary file that has no name any more: its bytes are freed with its last reader."""
        from pcam_model.data.hdf5 import Hdf5Patches

        parent = scratch or Path(tempfile.gettempdir())
        with write_guard(parent):
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="hdf5-", dir=parent, ignore_cleanup_errors=True) as folder:
                return Hdf5Patches(gunzip(path, Path(folder, "x.h5"), MAX_PATCHES * PATCH_BYTES))

    def __len__(self) -> int:
        return self.patches.count

    def name(self, row: int) -> ImageName:
        """The id, made of the file and the row's number, and the file."""
        return ImageName(f"{self.id_prefix}-{row:06d}", self.file)

    def content(self, row: int) -> bytes:
        """The pixels. Raises PatchError."""
        return self.patch(row).tobytes()

    def patch(self, row: int) -> Patch:
        """uint8 (96, 96, 3). Raises PatchError. Thread-safe."""
        return self.patches.patch(row)


def image_files(folder: Path) -> tuple[list[Path], list[str]]:
    """The HDF5 files of images below a folder, train first, and the names of unknown files in it.

    Where a file is there packed and unpacked, the unpacked one is taken.

    Raises:
        SourceError: there is none.
    """
    files = list_files(folder)
    images = [file for file in files if is_hdf5(file) and "x" in dataset_of(file)]
    unpacked = {(file.parent, stem_of(file)) for file in images if not is_packed(file)}
    images = [file for file in images if not is_packed(file) or (file.parent, stem_of(file)) not in unpacked]
    if not images:
        raise SourceError(
            f"{folder}: none of PCam's image files is here; add {PREFIX}_test_x.h5[.gz] or another that ends in _x.h5, "
            "or give another path"
        )
    unknown = [file for file in files if not is_hdf5(file) and not file.name.startswith(PREFIX)]
    return in_split_order(images, folder), [file.relative_to(folder).as_posix() for file in unknown]
