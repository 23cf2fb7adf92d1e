"""Patches to predict that are the rows of an HDF5 file in PCam's layout; labels need not be there."""

import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from pcam_model.core.errors import SourceError, require_package
from pcam_model.core.files import disk_space_guard
from pcam_model.data.image import PATCH_BYTES, Patch
from pcam_model.data.names import LITTER, NamedImage
from pcam_model.data.official_files import PREFIX, unpacked

if TYPE_CHECKING:
    from pcam_model.data.hdf5 import Images

MOST = 1 << 20  # patches that a packed file may hold; PCam's largest has 262,144


class Hdf5Images:
    """The dataset `x` of a file; one that is packed (.gz) is unpacked for as long as it is used."""

    def __init__(self, path: Path, name: str, scratch: Path | None) -> None:
        """`name` is what the file is called in tables, `scratch` where it is unpacked.

        Raises:
            SourceError: it is broken, or holds no patches.
        """
        with require_package("an HDF5 file"):
            from pcam_model.data.hdf5 import Images

        self.name, stem = name, path.name.removesuffix(".gz").removesuffix(".h5")
        side = stem.removeprefix(f"{PREFIX}_").removesuffix("_x")
        self.above = f"pcam-{side}" if stem == f"{PREFIX}_{side}_x" else stem  # a pack of these files has the same ids
        self.images = self._unpacked(path, scratch) if path.suffix == ".gz" else Images(path)
        weakref.finalize(self, self.images.close)

    def _unpacked(self, path: Path, scratch: Path | None) -> "Images":
        """Open what is unpacked, then remove its name: its bytes go with the last who reads them, however that ends."""
        from pcam_model.data.hdf5 import Images

        place = scratch or Path(tempfile.gettempdir())
        with disk_space_guard(place):
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="hdf5-", dir=place, ignore_cleanup_errors=True) as folder:
                return Images(unpacked(path, Path(folder, path.stem), MOST * PATCH_BYTES))

    def __len__(self) -> int:
        return self.images.count

    def named(self, row: int) -> NamedImage:
        """Its number in the file is its id; the ids of PCam's own files are those of a pack of them."""
        return NamedImage(f"{self.above}-{row:06d}", self.name)

    def content(self, row: int) -> bytes:
        """The pixels. Raises PatchError."""
        return self.patch(row).tobytes()

    def patch(self, row: int) -> Patch:
        """uint8 (96, 96, 3). Raises PatchError. Any thread may call it."""
        return self.images.patch(row)


def official_images(folder: Path) -> tuple[list[Path], list[str]]:
    """The files with images of a folder of PCam's official ones, train first, and the names of strange files there.

    Of a file that is there packed and unpacked it is the unpacked one.

    Raises:
        SourceError: there is none.
    """
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    wanted = [f"{PREFIX}_{side}_x.h5" for side in ("train", "valid", "test")]
    found = [folder / (name if name in names else f"{name}.gz") for name in wanted if {name, f"{name}.gz"} & set(names)]
    if not found:
        raise SourceError(f"{folder}: of PCam's official files none with images is here; add {wanted[-1]}[.gz]")
    return found, [name for name in names if not name.startswith(PREFIX) and name not in LITTER]
