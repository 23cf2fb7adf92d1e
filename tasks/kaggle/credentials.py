"""Credentials for Kaggle: whether there are any, and whether other users can read them."""

import os
import stat
from pathlib import Path

from pcam_model.core.errors import SourceError
from pcam_model.core.paths import require_home

FILES = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")


def require_credentials() -> None:
    """Raise SourceError where there are no credentials, or where they are in a file that others can read."""
    if os.environ.get("KAGGLE_API_TOKEN") or (os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY")):
        return
    files = credential_files()
    for path in files:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise SourceError(
                f"{path}: these Kaggle credentials can be read by other users of this machine; close the file with "
                f"`chmod 600 {path}`, and better make new ones at https://www.kaggle.com/settings"
            )
    if not files:
        hint = " (KAGGLE_USERNAME needs KAGGLE_KEY beside it)" if os.environ.get("KAGGLE_USERNAME") else ""
        raise SourceError(
            f"there are no Kaggle credentials{hint}; make a token at https://www.kaggle.com/settings and set "
            "KAGGLE_API_TOKEN, or KAGGLE_USERNAME and KAGGLE_KEY, or put kaggle.json into ~/.kaggle"
        )


def credential_files() -> list[Path]:
    """The files that exist of those in which Kaggle's client looks for credentials."""
    require_home("Kaggle's client")
    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"
    folders = [Path(os.environ["KAGGLE_CONFIG_DIR"])] if os.environ.get("KAGGLE_CONFIG_DIR") else []
    paths = [folder / name for folder in (*folders, home / ".kaggle", config) for name in FILES]
    return [path for path in paths if path.is_file()]
