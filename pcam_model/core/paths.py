"""Default paths and addresses; the only reader of PCAM_STORE and PCAM_CACHE."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

import platformdirs

from pcam_model.core.errors import ConfigError

TEMPORARY_PREFIX = "pcam-"  # of temporary folders


def cache_dir() -> Path:
    """The folder for packs, pulled models and scratch: PCAM_CACHE, else the user's cache folder (`~/.cache/pcam`).

    Raises:
        ConfigError: neither PCAM_CACHE nor a home folder is set, or one names no folder.
    """
    configured = os.environ.get("PCAM_CACHE")
    path = Path(configured or platformdirs.user_cache_dir("pcam"))
    try:
        path = path.expanduser()
        str(path).encode()  # onnxruntime opens no file below a name that is no UTF-8
    except (RuntimeError, UnicodeEncodeError):
        if configured:
            raise ConfigError(
                f"PCAM_CACHE is {configured!a}, expected a folder whose name is UTF-8, and whose ~user has a home; "
                "correct PCAM_CACHE"
            ) from None
        path = Path()
    if not configured and not path.is_absolute():
        raise ConfigError(
            "there is no folder for the cache: the user has no home folder (HOME is not set); set PCAM_CACHE to a "
            "folder that can be written to"
        )
    return path.absolute()


def require_home(what: str) -> None:
    """Raise ConfigError where the user has no home folder, which `what` needs."""
    try:
        Path.home()
    except RuntimeError:
        raise ConfigError(
            f"{what} needs a home folder, and this user has none (HOME is not set); set HOME to a folder that can be "
            "written to"
        ) from None


def setting_of(folder: Path) -> str:
    """The variable that decides where a folder is: PCAM_CACHE, PCAM_STORE or TMPDIR; empty where none of them does."""
    roots: dict[str, Path] = {}
    with suppress(ConfigError):
        roots["PCAM_CACHE"] = cache_dir()
    store = urlsplit(resolve_store_uri())
    if store.scheme in ("", "file"):
        roots["PCAM_STORE"] = Path(unquote(store.path))
    name = next((name for name, root in roots.items() if folder.is_relative_to(root)), "")
    with suppress(OSError):
        temporary = Path(tempfile.gettempdir(), TEMPORARY_PREFIX)
        name = name or ("TMPDIR" if str(folder).startswith(str(temporary)) else "")
    return name


def resolve_store_uri(uri: str = "") -> str:
    """The store's address: `uri`, else PCAM_STORE, else the folder .pcam/store below the working directory."""
    return uri or os.environ.get("PCAM_STORE") or (Path.cwd() / ".pcam" / "store").as_uri()
