"""PCam's official files from a web address, as it were a folder."""

import hashlib
import time
from pathlib import Path
from urllib.parse import urlsplit

from pcam_model.core.errors import ConfigError, SourceError
from pcam_model.core.files import disk_space_guard, exclusive_lock
from pcam_model.data.http_download import Wait, download
from pcam_model.data.official_files import PREFIX, PUBLISHED


def fetch_official(address: str, downloads: Path, *, published: bool, wait: Wait = time.sleep) -> Path:
    """A folder below `downloads` with the official files that lie at an address; those that came before are kept.

    `published`: only those with the published MD5. Raises SourceError where the address has none of them, Transient.
    """
    if "@" in urlsplit(address).netloc:
        raise ConfigError(
            "a web address holds no credentials: it is shown and kept; give one that needs none, or a folder"
        )
    base = address.split("?")[0].rstrip("/")
    folder = downloads / f"pcam-{hashlib.sha256(base.encode()).hexdigest()[:16]}"
    with disk_space_guard(downloads):
        folder.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(folder):
            for name in sorted(PUBLISHED, key=lambda name: "_x." in name):
                fetch_one(base, folder, name, published, wait)
    if not any(folder.glob(f"{PREFIX}_*_y.h5*")):
        raise SourceError(
            f"{address}: there are none of PCam's official files at this address; give the one below which "
            f"{PREFIX}_train_x.h5.gz lies"
        )
    return folder


def fetch_one(base: str, folder: Path, name: str, published: bool, wait: Wait) -> None:
    """Fetch one file, packed or unpacked, where the address has it and the folder has not."""
    whole = f"{PREFIX}_{name}"
    sums = frozenset(PUBLISHED[name] if published else ())
    for wanted in dict.fromkeys((whole, whole.removesuffix(".gz"))):
        target = folder / wanted
        if target.exists() or download(f"{base}/{wanted}", target, sums, wait):
            return
