"""Images to predict, from archives, folders, packs, HDF5, parquet and image files; labels are not needed."""

import bisect
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from pcam_model.core.errors import SourceError, require_package
from pcam_model.data.container import Folder, readable_name
from pcam_model.data.file_names import LABELS_FILE, is_image
from pcam_model.data.hdf5_inputs import Hdf5Images, image_files
from pcam_model.data.image import Decoder, ImageName, Patch, PatchError, pixel_digest
from pcam_model.data.layouts import find_parquet, layout_by_name
from pcam_model.data.open_container import open_container


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
        table = load_table(pack)
        self.patches, self.digests = load_patches(pack), table["pixels"].tolist()
        self.ids: list[str] = table["id"].astype(str).tolist()

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, row: int) -> ImageName:
        return ImageName(self.ids[row], "")

    def content(self, row: int) -> bytes:
        return bytes(self.patches[row].data)

    def patch(self, row: int) -> Patch:
        patch: Patch = self.patches[row]
        if pixel_digest(patch.data) != self.digests[row]:
            raise PatchError("its pixels are not those that were packed; pack the source again")
        return patch


class _ParquetInput:
    """The images of parquet shards."""

    def __init__(self, path: Path, prefix: str) -> None:
        with require_package("a parquet file"):  # pandas, which the prediction of image files does not need
            from pcam_model.data.parquet import ParquetPatches

        self.patches = ParquetPatches(path, find_parquet(path), with_labels=False)
        self.ids, self.files = (self.patches.table[name].tolist() for name in ("id", "file"))
        self.prefix = prefix if path.is_dir() else ""

    def __len__(self) -> int:
        return len(self.ids)

    def name(self, row: int) -> ImageName:
        return ImageName(self.ids[row], self.prefix + self.files[row])

    def content(self, row: int) -> bytes:
        return self.patches.content(row)

    def patch(self, row: int) -> Patch:
        return self.patches.patch(row)


class Images:
    """All images of some paths, path after path: sorted by name in a folder, in their own order in a zip or a pack."""

    def __init__(self, paths: Sequence[Path], scratch: Path | None = None) -> None:
        """Open the paths.

        Args:
            paths: zips, tars, folders, packs, image files, HDF5 files or parquet shards, or folders of them.
            scratch: where packed HDF5 files are unpacked while they are read; the system's temporary folder by default.

        Raises:
            SourceError: a path does not exist, cannot be read or holds no image.
        """
        self._scratch = scratch
        self.ignored_files: list[str] = []
        """Files that are no images by their names."""
        prefixes = [""] if len(paths) == 1 else [readable_name(f"{path}/") for path in paths]
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
        if path.is_file() and is_image(path.name):
            name = readable_name(str(path))
            yield _FileInput([name], lambda _: Folder(path.parent).read(path.name), "")
            return
        layout = layout_by_name(path)
        if layout == "pack":
            yield _PackInput(path)
        elif layout == "hdf5" and path.is_file():
            yield Hdf5Images(path, str(path), self._scratch)
        elif layout == "hdf5":
            files, ignored = image_files(path)
            self.ignored_files += [prefix + name for name in ignored]
            for file in files:
                yield Hdf5Images(file, prefix + file.relative_to(path).as_posix(), self._scratch)
        elif layout == "parquet":
            yield _ParquetInput(path, prefix)
        else:
            yield self._open_container(path, prefix)

    def _open_container(self, path: Path, prefix: str) -> _FileInput:
        container = open_container(path, max_depth=math.inf)
        names = [name for name in container.names() if name.rpartition("/")[2] != LABELS_FILE]
        images = [name for name in names if is_image(name)]
        if not images:
            raise SourceError(
                f"{path}: no image is among its {len(names):,} files; expected .tif, .png, .jpg, .bmp or .webp files "
                "at any depth, PCam's HDF5 files, parquet shards or a pack; give another path"
            )
        self.ignored_files += [prefix + name for name in names if not is_image(name)]
        return _FileInput(images, container.read, prefix)
