"""Images to predict: every one in zips, folders, packs, PCam's HDF5 and files; labels are not asked for."""

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from pcam_model.core.errors import SourceError, require_package
from pcam_model.data.container import Folder, open_container
from pcam_model.data.hdf5_inputs import Hdf5Images, official_images
from pcam_model.data.image import Decoder, Patch, PatchError
from pcam_model.data.names import IMAGES, LABELS, LITTER, PACK, NamedImage
from pcam_model.data.official_files import holds_official


class _Part(Protocol):
    """The images of one place."""

    def __len__(self) -> int: ...

    def named(self, row: int) -> NamedImage: ...

    def content(self, row: int) -> bytes: ...

    def patch(self, row: int) -> Patch: ...


class _Files:
    """Image files of one place."""

    def __init__(self, names: list[str], read: Callable[[str], bytes], above: str) -> None:
        self.names, self.read, self.above, self.decode = names, read, above, Decoder()

    def __len__(self) -> int:
        return len(self.names)

    def named(self, row: int) -> NamedImage:
        return NamedImage(PurePosixPath(self.names[row]).stem, self.above + self.names[row])

    def content(self, row: int) -> bytes:
        return self.read(self.names[row])

    def patch(self, row: int) -> Patch:
        return self.decode(self.content(row))


class _Pack:
    """The patches of a pack."""

    def __init__(self, folder: Path) -> None:
        with require_package("a pack"):  # who predicts image files needs no pandas
            from pcam_model.data.pack import open_pack, patches, table

        pack = open_pack(folder)
        self.array = patches(pack)
        self.ids: list[str] = table(pack)["id"].astype(str).tolist()

    def __len__(self) -> int:
        return len(self.ids)

    def named(self, row: int) -> NamedImage:
        return NamedImage(self.ids[row], "")

    def content(self, row: int) -> bytes:
        return bytes(self.array[row].data)

    def patch(self, row: int) -> Patch:
        patch: Patch = self.array[row]
        return patch


class Images:
    """All images of some places, in the order of the places: by name in a folder, as they lie in a zip or a pack."""

    def __init__(self, places: Sequence[Path], scratch: Path | None = None) -> None:
        """Raises SourceError where a place is not there, cannot be read or holds no image.

        Args:
            places: zips, folders, packs, image files, folders of PCam's official HDF5 files, or those of images.
            scratch: where packed HDF5 files are unpacked while they are read; the system's place by default.
        """
        self._scratch = scratch
        self.others: list[str] = []
        """Files that hold no images as far as their names tell, and were left out."""
        alone = len(places) == 1
        self._parts = [part for place in places for part in self._opened(place, "" if alone else f"{place}/")]
        self._starts = [0]
        for part in self._parts:
            self._starts.append(self._starts[-1] + len(part))

    def __len__(self) -> int:
        return self._starts[-1]

    def named(self, row: int) -> NamedImage:
        """Which image is in this row."""
        part, at = self._at(row)
        return part.named(at)

    def patch(self, row: int) -> Patch:
        """uint8 (96, 96, 3). Raises PatchError, with the reason. Any thread may call it."""
        part, at = self._at(row)
        return part.patch(at)

    def content(self, row: int) -> bytes:
        """What the patch is decoded from; empty where it cannot be read. Any thread may call it."""
        part, at = self._at(row)
        try:
            return part.content(at)
        except PatchError:
            return b""

    def _at(self, row: int) -> tuple[_Part, int]:
        which = bisect.bisect_right(self._starts, row) - 1
        return self._parts[which], row - self._starts[which]

    def _opened(self, place: Path, above: str) -> Iterator[_Part]:
        if holds_official(place):
            files, others = official_images(place)
            self.others += [above + name for name in others]
            yield from (Hdf5Images(file, above + file.name, self._scratch) for file in files)
        else:
            yield self._part(place, above)

    def _part(self, place: Path, above: str) -> _Part:
        if (place / PACK).is_file():
            return _Pack(place)
        if place.is_file() and place.name.endswith((".h5", ".h5.gz")):
            return Hdf5Images(place, str(place), self._scratch)
        if place.is_file() and _kind(place.name) in IMAGES:
            return _Files([str(place)], Folder(Path()).read, "")
        container = Folder(place, deep=math.inf) if place.is_dir() else open_container(place)
        names = list(container.names())
        found = [name for name in names if _kind(name) in IMAGES and not _litter(name)]
        if not found:
            raise SourceError(
                f"{place}: no image is among its {len(names):,} files; expected .tif, .png or .jpg files at any depth, "
                "or a pack; name another place"
            )
        self.others += [above + name for name in names if _kind(name) not in IMAGES and not _litter(name)]
        return _Files(found, container.read, above)


def _kind(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def _litter(name: str) -> bool:
    parts = name.split("/")
    return parts[-1] in {*LITTER, LABELS} or any(part.startswith(".") or part == "__MACOSX" for part in parts)
