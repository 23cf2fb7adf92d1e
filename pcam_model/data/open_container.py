"""Opens a folder or an archive with the zips that lie in it, as Kaggle's train.zip beside train_labels.csv."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pcam_model.core.errors import SourceError
from pcam_model.core.log import log
from pcam_model.data.container import MAX_IMAGE_BYTES, MAX_TABLE_BYTES, Container, Folder
from pcam_model.data.file_kinds import is_tar, packed_kind
from pcam_model.data.file_names import is_image
from pcam_model.data.image import PatchError
from pcam_model.data.tar_archive import Tar
from pcam_model.data.zip_archive import FilePart, Zip


def open_container(path: Path, max_depth: float = 5) -> Container:
    """The files of the zip, the tar or the folder at this path, and of the zips in it.

    Raises:
        SourceError: it is none of them, or an archive of another kind.
    """
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder; give the path of a .zip, a .tar or a folder of patches")
    if path.is_dir():
        return _with_inner_zips(path, Folder(path, max_depth, refuse_deeper=True))
    if packed := packed_kind(path):
        kind, command = packed
        raise SourceError(
            f"{path}: this is a {kind} archive, which cannot be read in place; unpack it into an empty folder "
            f"({command}), and give the folder"
        )
    return _with_inner_zips(path, Tar(path) if is_tar(path) else Zip(path))


def _with_inner_zips(path: Path, outer: Container) -> Container:
    names = set(outer.names())
    zips = sorted(name for name in names if name.lower().endswith(".zip"))
    if not zips:
        return outer
    tops = {name.rpartition("/")[0] for name in names}
    folders = {str(parent) for top in tops for parent in (PurePosixPath(top), *PurePosixPath(top).parents)}
    inner, unpacked = [], []
    for name in zips:
        if name[:-4] in names or name[:-4] in folders:
            unpacked.append(name)
        else:
            inner.append(InnerZip(name, open_inner_zip(path, outer, name)))
    if unpacked:
        log.info("%s: %s is not read, since it lies there unpacked too", path, ", ".join(unpacked))
    return Nested(outer, inner, {*zips})


def open_inner_zip(path: Path, outer: Container, name: str) -> Zip:
    """A zip in a folder, or in an archive, where it is stored as it is; a small one may be compressed there."""
    if isinstance(outer, Folder):
        return Zip(outer.locate(name))
    try:
        if isinstance(outer, Tar):
            offset, size = outer.members[name]
            return Zip(path, name, FilePart(os.dup(outer.file), offset, size))
        if isinstance(outer, Zip) and (part := outer.part_of(name)):
            return Zip(path, name, part)
        return Zip(path, name, _temporary_part(outer.read(name, MAX_TABLE_BYTES)))
    except PatchError as error:
        raise SourceError(
            f"{path}: the zip {name} in it cannot be read in place ({error}); unpack {path.name} into a folder, and "
            "give the folder"
        ) from error


def _temporary_part(content: bytes) -> FilePart:
    """The bytes in a file that has no name and is gone when it is closed."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        return FilePart(os.dup(file.fileno()), 0, len(content))


class InnerZip:
    """A zip in another container. Its files lie beside it; images that are in no folder, in one of its name."""

    def __init__(self, name: str, archive: Zip) -> None:
        self.archive = archive
        self.prefix = name[: -len(PurePosixPath(name).name)]
        if any(is_image(file) and "/" not in file for file in archive.names()):
            self.prefix = f"{name[:-4]}/"

    def inner_name(self, name: str) -> str | None:
        """The name in the zip of a file of the container; None where it is not in it."""
        inner = name.removeprefix(self.prefix)
        return inner if name.startswith(self.prefix) and inner in self.archive.members else None


class Nested:
    """A container and the files of the zips in it."""

    def __init__(self, outer: Container, inner: list[InnerZip], zips: set[str]) -> None:
        self.outer, self.inner, self.zips = outer, inner, zips

    def names(self) -> Iterator[str]:
        """The files' names, those of the zips last, without the zips themselves."""
        yield from (name for name in self.outer.names() if name not in self.zips)
        for each in self.inner:
            yield from (each.prefix + name for name in each.archive.names())

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """A file's bytes. Raises PatchError where it is larger, or fails its checksum. Thread-safe."""
        for each in self.inner:
            if (inner := each.inner_name(name)) is not None:
                return each.archive.read(inner, max_bytes)
        return self.outer.read(name, max_bytes)

    def read_block(self, names: Sequence[str]) -> list[bytes] | None:
        """The bytes of small files of one zip at once; None where they must be read one by one. Thread-safe."""
        for each in self.inner:
            inner = [name for name in map(each.inner_name, names) if name is not None]
            if len(inner) == len(names):
                return each.archive.read_block(inner)
        return None

    def close(self) -> None:
        """Close open files."""
        for each in self.inner:
            each.archive.close()
        self.outer.close()
