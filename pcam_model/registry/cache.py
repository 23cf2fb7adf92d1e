"""Files that were pulled before, by SHA-256, and the manifests of names; used while a store is unavailable."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pcam_model.core.errors import ModelError, UnwritableError
from pcam_model.core.files import link_or_copy, write_atomic
from pcam_model.core.log import log
from pcam_model.core.write_guard import write_guard
from pcam_model.registry.manifest import FileRecord, Files, sha256_hex
from pcam_model.registry.transfer import is_same_file


class Cache:
    """A folder of files by SHA-256 and of manifests by store and name; every file is verified before it is used.

    A folder that cannot be written to or read is logged once, and then nothing is added to it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._has_warned = False

    def write_manifest(self, store_uri: str, name: str, manifest: bytes) -> None:
        """Save the manifest of the run that a name in a store stands for."""
        if self.read_manifest(store_uri, name) != manifest:
            with self._tolerating_refusal():
                write_atomic(self._manifest_path(store_uri, name), manifest)

    def read_manifest(self, store_uri: str, name: str) -> bytes | None:
        """The manifest of the run that the name stood for when the store last answered, or None."""
        with self._tolerating_refusal():
            try:
                return self._manifest_path(store_uri, name).read_bytes()
            except FileNotFoundError:
                return None
        return None

    def copy_to(self, files: Files, folder: Path) -> None:
        """Link or copy those of the files that are cached and undamaged into the folder, unless it has them."""
        for path, file in files.items():
            cached, target = self._file_path(file), folder / path
            with self._tolerating_refusal():
                if not target.exists() and is_same_file(cached, file):
                    _link_or_copy(cached, target)

    def add(self, files: Files, folder: Path) -> None:
        """Link or copy verified files of the folder into the cache."""
        for path, file in files.items():
            cached = self._file_path(file)
            with self._tolerating_refusal():
                if not is_same_file(cached, file):
                    _link_or_copy(folder / path, cached)

    @contextmanager
    def _tolerating_refusal(self) -> Iterator[None]:
        try:
            with write_guard(self.folder):
                yield
        except UnwritableError as error:
            if not self._has_warned:
                log.warning("%s. Going on without the cache", error)
            self._has_warned = True

    def _manifest_path(self, store_uri: str, name: str) -> Path:
        return self.folder / "manifests" / f"{sha256_hex(f'{store_uri} {name}'.encode())[:32]}.json"

    def _file_path(self, file: FileRecord) -> Path:
        return self.folder / "files" / file.sha256


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        link_or_copy(source, target)
    except FileNotFoundError:
        raise ModelError(f"{source} was removed while it was copied; run again") from None
