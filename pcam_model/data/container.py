"""The files of a patch set by name, in a folder or an archive."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pcam_model.core.errors import SourceError
from pcam_model.data.file_names import is_image, is_system_file
from pcam_model.data.image import PatchError

# A 96x96 RGB patch is 27,648 bytes; what claims to be far larger is no patch, or a zip bomb.
MAX_IMAGE_BYTES = 1 << 20
MAX_TABLE_BYTES = 1 << 26
CLOUD_PLACEHOLDER = re.compile(r"^\.(.+)\.icloud$")  # in place of a file that iCloud has taken off the disk


class Container(Protocol):
    """Files by name."""

    def names(self) -> Iterator[str]:
        """The files' names without system files, with forward slashes, in the order in which they are best read."""

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """A file's bytes. Raises PatchError where it is larger, or fails its checksum. Thread-safe."""

    def read_block(self, names: Sequence[str]) -> list[bytes] | None:
        """The bytes of small files at once; None where they must be read one by one. Thread-safe."""

    def close(self) -> None:
        """Close open files."""


class Folder:
    """The files below a folder, at most `max_depth` folders deep, as in top/train/tumor/x.tif."""

    def __init__(self, path: Path, max_depth: float = 5, *, refuse_deeper: bool = False) -> None:
        """`refuse_deeper`: listing the names raises SourceError where there are images below `max_depth`."""
        self.path, self.max_depth, self.refuse_deeper = path, max_depth, refuse_deeper
        self.paths: dict[str, str] = {}
        """Relative paths of files that have another name here."""

    def names(self) -> Iterator[str]:
        """The files' names, sorted, without system files. Links are followed, except to a folder above.

        An image that is a broken link has a name too: reading it says so. Raises SourceError for a folder that may not
        be listed.
        """
        for folder, folders, files in os.walk(self.path, onerror=_refuse_unreadable, followlinks=True):
            parts = Path(folder).relative_to(self.path).parts
            real_folder = f"{os.path.realpath(folder)}/"
            folders[:] = [
                name
                for name in sorted(folders)
                if not (is_system_file(f"{name}/") or real_folder.startswith(_real_path(folder, name)))
            ]
            if len(parts) >= self.max_depth:
                self._leave_out(folder, folders)
            for file in sorted(files):
                path = "/".join([*parts, file])
                name = readable_name("/".join([*parts, CLOUD_PLACEHOLDER.sub(r"\1", file)]))
                if is_system_file(name) or not (Path(folder, file).is_file() or _is_broken_image(Path(folder, file))):
                    continue
                if name != path:
                    self.paths[name] = path
                yield name

    def _leave_out(self, folder: str, folders: list[str]) -> None:
        """Remove these folders from the walk; raise SourceError where it has to be said that images are in them."""
        for name in folders if self.refuse_deeper else ():
            for deeper, _, files in os.walk(Path(folder, name)):
                images = [file for file in files if is_image(file) and not is_system_file(file)]
                if images:
                    raise SourceError(
                        f"{self.path}: {Path(deeper, images[0])} lies more than {self.max_depth} folders deep; give a "
                        "folder further down, or move the images up"
                    )
        folders.clear()

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The file's bytes. Raises PatchError where it is larger, or cannot be read."""
        path = self.locate(name)
        try:
            with path.open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            reason = f"a link to {path.readlink()}, which is not there" if _is_broken_image(path) else error.strerror
            raise PatchError(f"it cannot be read ({reason})") from error
        if len(content) > max_bytes:
            raise PatchError(f"it is larger than {max_bytes:,} bytes")
        return content

    def read_block(self, names: Sequence[str]) -> None:
        """None: each file is read by itself."""

    def locate(self, name: str) -> Path:
        """The path of a file that `names` gave."""
        return self.path / self.paths.get(name, name)

    def close(self) -> None:
        """Do nothing: no file is kept open."""


def readable_name(path: str) -> str:
    r"""A relative path with forward slashes, as UTF-8 can write it: bytes that are none become codes, as \xe4.

    Unpacked without care, a zip made on Windows gives files whose names hold backslashes.
    """
    return path.replace("\\", "/").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _refuse_unreadable(error: OSError) -> None:
    if isinstance(error, FileNotFoundError | NotADirectoryError):  # it is none, or is gone
        return
    raise SourceError(f"{error.filename}: this folder cannot be read ({error.strerror}); make it readable, or move it")


def _is_broken_image(path: Path) -> bool:
    return path.is_symlink() and not path.exists() and is_image(path.name)


def _real_path(folder: str, name: str) -> str:
    return f"{Path(folder, name).resolve()}/"
