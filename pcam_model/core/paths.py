"""Where this machine keeps things; the only reader of PCAM_STORE and PCAM_CACHE."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Packs, pulled models and scratch: PCAM_CACHE, else ~/.cache/pcam."""
    return Path(os.environ.get("PCAM_CACHE") or Path.home() / ".cache" / "pcam").expanduser().absolute()


def resolve_store_uri(asked: str = "") -> str:
    """The store that is asked for, else PCAM_STORE, else the folder .pcam/store here."""
    return asked or os.environ.get("PCAM_STORE") or (Path.cwd() / ".pcam" / "store").as_uri()
