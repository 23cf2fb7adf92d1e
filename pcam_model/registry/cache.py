"""What was pulled before, by digest: it need not come again, and serves while the store is away."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

from pcam_model.core.errors import ModelError
from pcam_model.core.files import write_atomic
from pcam_model.registry.manifest import FileRecord, Files, sha256_hex
from pcam_model.registry.transfer import same_file


class Cache:
    """Files under their SHA-256, and the last manifest that each name stood for. Nothing is believed unchecked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def remember(self, address: str, name: str, manifest: bytes) -> None:
        """What a name of a store stands for just now."""
        write_atomic(self._known(address, name), manifest)

    def recall(self, address: str, name: str) -> bytes | None:
        """The manifest that the name stood for when the store last answered, or None."""
        with suppress(FileNotFoundError):
            return self._known(address, name).read_bytes()
        return None

    def take(self, files: Files, folder: Path) -> None:
        """Lay those of the files that are here, and whole, into the folder, unless they are there."""
        for path, file in files.items():
            kept, target = self._file(file), folder / path
            if not target.exists() and same_file(kept, file):
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(kept, target)

    def keep(self, files: Files, folder: Path) -> None:
        """Have these files of the folder here too; they were checked."""
        for path, file in files.items():
            kept = self._file(file)
            if not same_file(kept, file):
                kept.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(folder / path, kept)

    def _known(self, address: str, name: str) -> Path:
        return self.folder / "known" / f"{sha256_hex(f'{address} {name}'.encode())[:32]}.json"

    def _file(self, file: FileRecord) -> Path:
        return self.folder / "files" / file.sha256


def _link_or_copy(source: Path, target: Path) -> None:
    """The target appears whole; it shares the source's bytes where the file system lets it."""
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        part.unlink(missing_ok=True)
        try:
            os.link(source, part)
        except OSError:
            shutil.copyfile(source, part)
        os.replace(part, target)
    except FileNotFoundError:
        raise ModelError(f"{source} vanished while it was copied; run again") from None
    finally:
        part.unlink(missing_ok=True)
