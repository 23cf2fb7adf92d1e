"""Downloads PCam's official files from a web address."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.locks import file_lock
from pcam_model.core.write_guard import write_guard
from pcam_model.data.container import MAX_TABLE_BYTES
from pcam_model.data.hdf5_names import PREFIX
from pcam_model.data.http_download import MAX_FILE_BYTES, download
from pcam_model.data.official_files import PUBLISHED_MD5


def fetch_official(url: str, downloads: Path, *, verify_md5: bool) -> Path:
    """A folder below `downloads` with the official files at this address; those in it are not downloaded again.

    Args:
        url: the address below which the files are.
        downloads: the folder of all downloads.
        verify_md5: whether files that are not the published ones are refused.

    Raises:
        ConfigError: the address holds credentials.
        SourceError: there are no official files at the address, or other ones than the published.
        TransientError: the server cannot be reached.
    """
    if "@" in urlsplit(url).netloc:
        raise ConfigError(
            "source.path holds credentials, and a web address is shown and stored; give an address that needs none, or "
            "a folder"
        )
    base = url.split("?")[0].rstrip("/")
    folder = downloads / f"pcam-{hashlib.sha256(base.encode()).hexdigest()[:16]}"
    with write_guard(downloads), file_lock(folder / ".lock"):
        for name in sorted(PUBLISHED_MD5, key=lambda name: "_x." in name):  # the large files last
            _fetch_file(base, folder, name, verify_md5)
    if not any(folder.glob(f"{PREFIX}_*_y.h5*")):
        raise SourceError(
            f"{url}: there are none of PCam's official files at this address; give the one below which "
            f"{PREFIX}_train_x.h5.gz is found"
        )
    return folder


def _fetch_file(base: str, folder: Path, name: str, verify_md5: bool) -> None:
    """Download one file, packed or unpacked, where the server has it and the folder has not."""
    packed = f"{PREFIX}_{name}"
    md5s = frozenset(PUBLISHED_MD5[name] if verify_md5 else ())
    max_bytes = MAX_FILE_BYTES if "_x." in name else MAX_TABLE_BYTES
    for file in dict.fromkeys((packed, packed.removesuffix(".gz"))):
        target = folder / file
        if target.exists() or download(f"{base}/{file}", target, md5s, max_bytes):
            return
