"""The layout of a source: a pack, HDF5 files, parquet shards, or image files with a table or in class folders."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pcam_model.core.errors import SourceError, require_package
from pcam_model.data.container import Folder
from pcam_model.data.file_names import LABELS_FILE, is_image, suffix_of
from pcam_model.data.hdf5_names import dataset_of, find_hdf5
from pcam_model.data.image import PACK_RECORD
from pcam_model.data.open_container import open_container

if TYPE_CHECKING:
    from pcam_model.data.patch_source import PatchSource

Layout = Literal["pack", "hdf5", "parquet", "images"]


def find_layout(path: Path) -> Layout:
    """The layout of what is at this path. Raises SourceError where there is nothing, or what cannot be opened."""
    layout = layout_by_name(path)
    if layout == "images":
        open_container(path).close()
    return layout


def layout_by_name(path: Path) -> Layout:
    """The layout that the names of the files at this path tell: "images" where they tell no other."""
    if (path / PACK_RECORD).is_file():
        return "pack"
    hdf5, parquet = find_hdf5(path), find_parquet(path)
    if (hdf5 or parquet) and path.is_dir() and (images := _image_names(path)):
        return _layout_beside_images(path, images, hdf5, parquet)
    if hdf5 or parquet:
        return "hdf5" if hdf5 else "parquet"
    return "images"


def _image_names(folder: Path) -> list[str]:
    """The images of a folder and its table of labels, where there are any."""
    names = [name for name in Folder(folder).names() if is_image(name) or PurePosixPath(name).name == LABELS_FILE]
    return names if any(map(is_image, names)) else []


def _layout_beside_images(path: Path, images: Sequence[str], hdf5: Sequence[Path], parquet: Sequence[Path]) -> Layout:
    """The layout of a folder with images, which may lie beside features in HDF5, or be the pictures of a README."""
    patches = next(chain(filter(dataset_of, hdf5), filter(holds_images, parquet)), None)
    if patches is None:
        return "images"
    if table := next((name for name in images if PurePosixPath(name).name == LABELS_FILE), ""):
        raise SourceError(
            f"{path}: it holds {table} with images, and patches in {patches.relative_to(path)} too; give the path of "
            "one of them, or move the other away"
        )
    return "hdf5" if patches in hdf5 else "parquet"


def holds_images(file: Path) -> bool:
    """Whether a parquet file has a column of files, or is damaged."""
    from pcam_model.data.parquet import has_image_column

    return has_image_column(file)


def find_parquet(path: Path) -> list[Path]:
    """The parquet file at this path, or those below a folder."""
    if path.is_file():
        return [path] if suffix_of(path.name) == "parquet" else []
    folder = Folder(path)
    return [folder.locate(name) for name in folder.names() if suffix_of(name) == "parquet"]


def open_patches(path: Path, scratch: Path, *, verify_md5: bool = True, classes: Sequence[str] = ()) -> "PatchSource":
    """The labelled patches at this path.

    Args:
        path: of a folder, an archive or a file.
        scratch: a folder for what has to be unpacked meanwhile.
        verify_md5: whether official files that are not the published ones are refused.
        classes: names of class 0 and 1 in folders and tables; empty: the usual ones.

    Raises:
        SourceError: there are none, or images and labels do not belong together.
    """
    layout = layout_by_name(path)
    if layout == "pack":
        raise SourceError(f"{path}: this is a pack that was made of a source; give the path of that source")
    if layout == "hdf5":
        with require_package("an HDF5 file"):
            from pcam_model.data.hdf5 import OfficialPatches
        return OfficialPatches(path, scratch, verify_md5=verify_md5)
    if layout == "parquet":
        from pcam_model.data.parquet import ParquetPatches

        return ParquetPatches(path, find_parquet(path), classes=classes)
    return open_images(path, classes)


def open_images(path: Path, classes: Sequence[str] = ()) -> "PatchSource":
    """The labelled image files of a folder or an archive, by a table of labels where there is one, else by folder."""
    from pcam_model.data.class_folders import ClassFolderPatches
    from pcam_model.data.kaggle_layout import KagglePatches

    container = open_container(path)
    try:
        names = list(container.names())
        if any(name.rpartition("/")[2] == LABELS_FILE for name in names):
            return KagglePatches(path, container, classes)
        return ClassFolderPatches(path, container, names, classes)
    except BaseException:
        container.close()
        raise
