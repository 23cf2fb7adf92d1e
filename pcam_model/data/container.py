"""The files of a patch set by name, in a folder or an archive."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from pcam_model.data.file_names import is_system_file
from pcam_model.data.image import PatchError

# A 96x96 RGB patch is 27,648 bytes; what claims to be far larger is no patch, or a zip bomb.
MAX_IMAGE_BYTES = 1 << 20
MAX_TABLE_BYTES = 1 << 26


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

    def __init__(self, path: Path, max_depth: float = 5) -> None:
        self.path, self.max_depth = path, max_depth
        # Unpacked without care, a zip made on Windows gives files whose names hold backslashes.
        self.paths: dict[str, str] = {}

    def names(self) -> Iterator[str]:
        """The files' names, sorted, without system files. Links are followed, except to a folder above."""
        for folder, folders, files in os.walk(self.path, followlinks=True):
            parts = Path(folder).relative_to(self.path).parts
            real_folder = f"{os.path.realpath(folder)}/"
            below = (name for name in sorted(folders) if not real_folder.startswith(_real_path(folder, name)))
            folders[:] = below if len(parts) < self.max_depth else []
            for file in sorted(files):
                path = "/".join([*parts, file])
                name = path.replace("\\", "/")
                if is_system_file(name) or not Path(folder, file).is_file():
                    continue
                if name != path:
                    self.paths[name] = path
                yield name

    def read(self, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The file's bytes. Raises PatchError where it is larger, or cannot be read."""
        try:
            with self.locate(name).open("rb") as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            raise PatchError(f"it cannot be read ({error.strerror})") from error
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


def _real_path(folder: str, name: str) -> str:
    return f"{Path(folder, name).resolve()}/"
