"""Files that were pulled before, by SHA-256, and the manifests of names; used while a store is unavailable."""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from pcam_model.core.errors import ModelError
from pcam_model.core.files import write_atomic
from pcam_model.registry.manifest import FileRecord, Files, sha256_hex
from pcam_model.registry.transfer import is_same_file


class Cache:
    """A folder of files by SHA-256 and of manifests by store and name; every file is verified before it is used."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write_manifest(self, store_uri: str, name: str, manifest: bytes) -> None:
        """Save the manifest of the run that a name in a store stands for."""
        write_atomic(self._manifest_path(store_uri, name), manifest)

    def read_manifest(self, store_uri: str, name: str) -> bytes | None:
        """The manifest of the run that the name stood for when the store last answered, or None."""
        with suppress(FileNotFoundError):
            return self._manifest_path(store_uri, name).read_bytes()
        return None

    def copy_to(self, files: Files, folder: Path) -> None:
        """Link or copy those of the files that are cached and undamaged into the folder, unless it has them."""
        for path, file in files.items():
            cached, target = self._file_path(file), folder / path
            if not target.exists() and is_same_file(cached, file):
                _link_or_copy(cached, target)

    def add(self, files: Files, folder: Path) -> None:
        """Link or copy verified files of the folder into the cache."""
        for path, file in files.items():
            cached = self._file_path(file)
            if not is_same_file(cached, file):
                _link_or_copy(folder / path, cached)

    def _manifest_path(self, store_uri: str, name: str) -> Path:
        return self.folder / "manifests" / f"{sha256_hex(f'{store_uri} {name}'.encode())[:32]}.json"

    def _file_path(self, file: FileRecord) -> Path:
        return self.folder / "files" / file.sha256


def _link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link to `source`, or a copy where the file system has no links; atomically."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
        part.replace(target)
    except FileNotFoundError:
        raise ModelError(f"{source} was removed while it was copied; run again") from None
    finally:
        part.unlink(missing_ok=True)
