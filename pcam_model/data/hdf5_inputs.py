"""Patches to predict that are the rows of an HDF5 file in PCam's layout; labels are not needed."""

import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from pcam_model.core.errors import SourceError, require_package
from pcam_model.core.splits import SPLITS
from pcam_model.core.write_guard import write_guard
from pcam_model.data.image import PATCH_BYTES, SYSTEM_FILES, ImageName, Patch
from pcam_model.data.official_files import PREFIX, gunzip

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

        self.file, stem = file, path.name.removesuffix(".gz").removesuffix(".h5")
        split = stem.removeprefix(f"{PREFIX}_").removesuffix("_x")
        # The same ids as in a pack of these files.
        self.id_prefix = f"pcam-{split}" if stem == f"{PREFIX}_{split}_x" else stem
        self.patches = self._unpack(path, scratch) if path.suffix == ".gz" else Hdf5Patches(path)
        weakref.finalize(self, self.patches.close)

    def _unpack(self, path: Path, scratch: Path | None) -> "Hdf5Patches":
        """Unpack into a temporary file that has no name any more: its bytes are freed with its last reader."""
        from pcam_model.data.hdf5 import Hdf5Patches

        parent = scratch or Path(tempfile.gettempdir())
        with write_guard(parent):
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="hdf5-", dir=parent, ignore_cleanup_errors=True) as folder:
                return Hdf5Patches(gunzip(path, Path(folder, path.stem), MAX_PATCHES * PATCH_BYTES))

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


def official_images(folder: Path) -> tuple[list[Path], list[str]]:
    """The image files of a folder of PCam's official files, train first, and the names of unknown files in it.

    Where a file is there packed and unpacked, the unpacked one is taken.

    Raises:
        SourceError: there is none.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    expected = [f"{PREFIX}_{split}_x.h5" for split in SPLITS]
    images = [
        folder / (name if name in names else f"{name}.gz") for name in expected if {name, f"{name}.gz"} & set(names)
    ]
    if not images:
        raise SourceError(
            f"{folder}: none of PCam's official image files is here; add {expected[-1]}[.gz], or give another path"
        )
    return images, [name for name in names if not name.startswith(PREFIX) and name not in SYSTEM_FILES]
