"""Default paths and addresses; the only reader of PCAM_STORE and PCAM_CACHE."""

import os
from pathlib import Path

import platformdirs

from pcam_model.core.errors import ConfigError


def cache_dir() -> Path:
    """The folder for packs, pulled models and scratch: PCAM_CACHE, else the user's cache folder (`~/.cache/pcam`).

    Raises:
        ConfigError: neither PCAM_CACHE nor a home folder is set.
    """
    configured = os.environ.get("PCAM_CACHE")
    path = Path(configured or platformdirs.user_cache_dir("pcam"))
    try:
        path = path.expanduser()
    except RuntimeError:
        path = Path()
    if not configured and not path.is_absolute():
        raise ConfigError(
            "there is no folder for the cache: the user has no home folder (HOME is not set); set PCAM_CACHE to a "
            "folder that can be written to"
        )
    return path.absolute()


def resolve_store_uri(uri: str = "") -> str:
    """The store's address: `uri`, else PCAM_STORE, else the folder .pcam/store below the working directory."""
    return uri or os.environ.get("PCAM_STORE") or (Path.cwd() / ".pcam" / "store").as_uri()
