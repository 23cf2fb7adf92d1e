"""The first import of Prefect, which reads all of its settings."""

import contextlib
import importlib
import io
import os
import sys
import tomllib
from pathlib import Path

from pcam_model.core.errors import ConfigError

CERTIFICATES = {"SSL_CERT_FILE": Path.is_file, "SSL_CERT_DIR": Path.is_dir}
FILES = "Prefect's profile, or .env, prefect.toml or pyproject.toml of this folder"


def import_prefect() -> None:
    """Import Prefect, as every module of `flows` and `tasks` does.

    Raises:
        ConfigError: its settings, or the certificates that are loaded with it, cannot be read.
    """
    for name, exists in CERTIFICATES.items():
        if os.environ.get(name) and not exists(Path(os.environ[name])):
            raise ConfigError(f"{name} names {os.environ[name]}, which is not there; correct or unset it")
    output = io.StringIO()  # Prefect logs what it does not survive a moment later
    try:
        with contextlib.redirect_stderr(output):
            importlib.import_module("prefect.context")
    except ValueError as error:  # of TOML, of pydantic, of pydantic-settings
        raise ConfigError(f"Prefect's settings cannot be read: {_explain(error)}") from None
    except OSError as error:
        raise ConfigError(f"Prefect's settings cannot be read: {error}") from None
    print(output.getvalue(), file=sys.stderr, end="")


def _explain(error: ValueError) -> str:
    """What is wrong, and where it is corrected."""
    if isinstance(error, tomllib.TOMLDecodeError):
        home = os.environ.get("PREFECT_HOME") or "~/.prefect"
        path = Path(os.environ.get("PREFECT_PROFILES_PATH") or f"{home}/profiles.toml").expanduser()
        return f"{path} is no TOML ({error}); correct it"
    if not hasattr(error, "errors"):
        return f"{str(error).splitlines()[0]}; correct it in {FILES}"
    first = error.errors()[0]
    names = [name for name, value in os.environ.items() if name.startswith("PREFECT_") and value == first["input"]]
    where = names[0] if names else ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}; correct " + ("that variable" if names else f"it in {FILES}")
