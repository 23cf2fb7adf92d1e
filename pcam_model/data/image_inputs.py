"""Images to predict, from zips, folders, packs, PCam's HDF5 and image files; labels are not needed."""

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from pcam_model.core.errors import SourceError, require_package
from pcam_model.data.container import Folder, open_container
from pcam_model.data.hdf5_inputs import Hdf5Images, official_images
from pcam_model.data.image import (
    IMAGE_SUFFIXES,
    LABELS_FILE,
    PACK_RECORD,
    SYSTEM_FILES,
    Decoder,
    ImageName,
    Patch,
    PatchError,
)
from pcam_model.data.official_files import holds_official


class _Input(Protocol):
    """The images of one path."""

    def __len__(self) -> int: ...

    def name(self, row: int) -> ImageName: ...

    def content(self, row: int) -> bytes: ...

    def patch(self, row: int) -> Patch: ...


class _FileInput:
    """Image files of one path."""

    def __init__(self, files: list[str], read: Callable[[str], bytes], prefix: str) -> None:
        self.files, self.read, self.prefix, self.decode = files, read, prefix, Decoder()

    def __len__(self) -> int:
        return len(self.files)

    def name(self, row: int) -> ImageName:
        return ImageName(PurePosixPath(self.files[row]).stem, self.prefix + self.files[row])

    def content(self, row: int) -> bytes:
        return self.read(self.files[row])

    def patch(self, row: int) -> Patch:
        return self.decode(self.content(row))


class _PackInput:
    """The patches of a pack."""

    def __init__(self, folder: Path) -> None:
        with require_package("a pack"):  # pandas, which the prediction of image files does not need
            from pcam_model.data.pack import load_patches, load_table, open_pack

        pack = open_pack(folder)
        self.patches = load_patches(pack)
        self.ids: list[str] = load_table(pack)["id"].astype(str).tolist()

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, row: int) -> ImageName:
        return ImageName(self.ids[row], "")

    def content(self, row: int) -> bytes:
        return bytes(self.patches[row].data)

    def patch(self, row: int) -> Patch:
        patch: Patch = self.patches[row]
        return patch


class Images:
    """All images of some paths, path after path: sorted by name in a folder, in their own order in a zip or a pack."""

    def __init__(self, paths: Sequence[Path], scratch: Path | None = None) -> None:
        """Open the paths.

        Args:
            paths: zips, folders, packs, image files, PCam's official HDF5 files or folders of them.
            scratch: where packed HDF5 files are unpacked while they are read; the system's temporary folder by default.

        Raises:
            SourceError: a path does not exist, cannot be read or holds no image.
        """
        self._scratch = scratch
        self.ignored_files: list[str] = []
        """Files that are no images by their names."""
        prefixes = [""] if len(paths) == 1 else [f"{path}/" for path in paths]
        self._inputs: list[_Input] = []
        self._starts = [0]
        for path, prefix in zip(paths, prefixes, strict=True):
            for source in self._open(path, prefix):
                self._inputs.append(source)
                self._starts.append(self._starts[-1] + len(source))

    def __len__(self) -> int:
        return self._starts[-1]

    def name(self, row: int) -> ImageName:
        """The id and file of the image in this row."""
        source, local_row = self._locate(row)
        return source.name(local_row)

    def patch(self, row: int) -> Patch:
        """uint8 (96, 96, 3). Raises PatchError, with the reason. Thread-safe."""
        source, local_row = self._locate(row)
        return source.patch(local_row)

    def content(self, row: int) -> bytes:
        """The bytes that the patch is decoded from; empty where they cannot be read. Thread-safe."""
        source, local_row = self._locate(row)
        try:
            return source.content(local_row)
        except PatchError:
            return b""

    def _locate(self, row: int) -> tuple[_Input, int]:
        index = bisect.bisect_right(self._starts, row) - 1
        return self._inputs[index], row - self._starts[index]

    def _open(self, path: Path, prefix: str) -> Iterator[_Input]:
        if holds_official(path):
            files, ignored = official_images(path)
            self.ignored_files += [prefix + name for name in ignored]
            yield from (Hdf5Images(file, prefix + file.name, self._scratch) for file in files)
        elif (path / PACK_RECORD).is_file():
            yield _PackInput(path)
        elif path.is_file() and path.name.endswith((".h5", ".h5.gz")):
            yield Hdf5Images(path, str(path), self._scratch)
        elif path.is_file() and _suffix(path.name) in IMAGE_SUFFIXES:
            yield _FileInput([str(path)], Folder(Path()).read, "")
        else:
            yield self._open_container(path, prefix)

    def _open_container(self, path: Path, prefix: str) -> _FileInput:
        container = Folder(path, max_depth=math.inf) if path.is_dir() else open_container(path)
        names = list(container.names())
        files = [name for name in names if not _is_hidden(name)]
        images = [name for name in files if _suffix(name) in IMAGE_SUFFIXES]
        if not images:
            raise SourceError(
                f"{path}: no image is among its {len(names):,} files; expected .tif, .png or .jpg files at any depth, "
                "or a pack; give another path"
            )
        self.ignored_files += [prefix + name for name in files if _suffix(name) not in IMAGE_SUFFIXES]
        return _FileInput(images, container.read, prefix)


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower().removeprefix(".")


def _is_hidden(name: str) -> bool:
    parts = name.split("/")
    return parts[-1] in {*SYSTEM_FILES, LABELS_FILE} or any(
        part.startswith(".") or part == "__MACOSX" for part in parts
    )
