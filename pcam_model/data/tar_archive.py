"""The members of a tar that is not compressed, read in place by positioned reads."""

import os
import tarfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.data.container import MAX_IMAGE_BYTES
from pcam_model.data.file_names import is_system_file
from pcam_model.data.image import PatchError
from pcam_model.data.zip_archive import is_outside

BLOCK = 512


class Tar:
    """The files of a tar; a tar holds no checksums of its files' content."""

    def __init__(self, path: Path) -> None:
        """Open the tar. Raises SourceError where it is truncated, or holds links or names outside the archive."""
        self.path = path
        self.members = read_members(path)
        """Offset and size of each file's content."""
        self.file = os.open(path, os.O_RDONLY)
        self._close = weakref.finalize(self, os.close, self.file)

    def names(self) -> Iterator[str]:
        """The files' names in the order of the archive, without system files."""
        return (name for name in self.members if not is_system_file(name))

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The file's bytes. Raises PatchError where it is larger, or cannot be read. Thread-safe."""
        offset, size = self.members[name]
        if size > max_bytes:
            raise PatchError(f"its size in the archive is {size:,} bytes, more than {max_bytes:,}")
        try:
            content = os.pread(self.file, size, offset)
        except OSError as error:
            raise PatchError(f"it cannot be read at byte {offset:,} of the archive ({error})") from error
        if len(content) != size:
            raise PatchError("the archive ends before it")
        return content

    def read_block(self, names: Sequence[str]) -> None:
        """None: each file is read by itself."""

    def close(self) -> None:
        """Close the file."""
        self._close()


def read_members(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and size of each file in the tar, by name."""
    members: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                if not info.isdir():
                    name = _checked_name(path, info, members)
                    members[name] = info.offset_data, info.size
                archive.members = []  # type: ignore[attr-defined]  # records that take far more memory than ours
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise SourceError(_truncated_message(path)) from error
    except OSError as error:
        reason = f"it cannot be read ({error.strerror}); make it readable, or give another path"
        raise SourceError(f"{path}: {reason}") from error
    # Cut between two members, a tar looks whole but for the empty blocks at its end.
    if not _ends_with_empty_block(path):
        raise SourceError(_truncated_message(path))
    return members


def _checked_name(path: Path, info: tarfile.TarInfo, members: dict[str, tuple[int, int]]) -> str:
    """The member's name with forward slashes, without "./"."""
    name = info.name.replace("\\", "/").removeprefix("./")
    if is_outside(info.name):
        raise SourceError(
            f"{path}: the member {info.name!r} points outside the archive, where only names such as train/ID.tif "
            "belong; do not trust this file, and download it again from its source"
        )
    if not info.isreg() or info.issparse():
        raise SourceError(
            f"{path}: the member {name} is no plain file but a link or device; make the archive again with the files "
            "themselves (tar --dereference --hard-dereference)"
        )
    if name in members:
        raise SourceError(
            f"{path}: the member {name} is twice in the archive, where each id belongs once; remove one of the two, or "
            "download the archive again"
        )
    return name


def _ends_with_empty_block(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-min(BLOCK, path.stat().st_size), os.SEEK_END)
        return file.read() == bytes(BLOCK)


def _truncated_message(path: Path) -> str:
    return f"{path}: this tar is truncated or damaged; download or copy it again"
