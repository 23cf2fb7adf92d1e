"""The first import of Prefect, which reads all of its settings."""

import contextlib
import importlib
import io
import os
import re
import ssl
import sys
import tomllib
from pathlib import Path

import yaml

from pcam_model.core.errors import ConfigError

FILES = "Prefect's profile, or .env, prefect.toml or pyproject.toml of this folder"


def import_prefect() -> None:
    """Import Prefect, as every module of `flows` and `tasks` does.

    Raises:
        ConfigError: its settings, proxies or certificates cannot be read, or the user's profile is not there.
    """
    if not os.environ.get("PREFECT_PROFILE"):
        os.environ.pop("PREFECT_PROFILE", None)  # empty, it is a profile without a name
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        _require_certificates(name, os.environ.get(name))
    output = io.StringIO()  # Prefect logs what it does not survive a moment later
    try:
        with contextlib.redirect_stderr(output):
            importlib.import_module("prefect.context")
    except ValueError as error:  # of TOML, of pydantic, of pydantic-settings
        raise ConfigError(f"Prefect's settings cannot be read: {_explain(error)}") from None
    except OSError as error:
        raise ConfigError(f"Prefect's settings cannot be read: {error}") from None
    _require_profile(output.getvalue())
    print(output.getvalue(), file=sys.stderr, end="")
    importlib.import_module("tasks.proxies").make_proxies_readable()
    settings = importlib.import_module("prefect.settings").get_current_settings()
    _require_certificates("PREFECT_API_SSL_CERT_FILE", settings.api.ssl_cert_file)
    _require_yaml("PREFECT_LOGGING_SETTINGS_PATH", settings.logging.config_path)


def _require_profile(output: str) -> None:
    """Raise ConfigError where Prefect goes on with another profile than the user's."""
    if missing := re.search(r"Active profile '(.*)' set (.*) not found", output):
        raise ConfigError(
            f"Prefect has no profile {missing[1]!r}, which is set {missing[2]}; choose one of those that `prefect "
            "profile ls` lists, or unset it (PREFECT_PROFILE)"
        )


def _require_certificates(name: str, path: str | None) -> None:
    """Raise ConfigError where a setting names no certificates: a client would say that the server does not answer."""
    is_folder = name.endswith("DIR")
    if path and not (Path(path).is_dir() if is_folder else Path(path).is_file()):
        raise ConfigError(f"{name} names {path}, which is not there; correct or unset it")
    try:
        ssl.create_default_context(cafile=path) if path and not is_folder else None
    except OSError as error:
        raise ConfigError(f"{name} names {path}, which holds no certificates ({error}); correct or unset it") from None


def _require_yaml(name: str, path: Path | None) -> None:
    try:
        yaml.safe_load(path.read_text("utf-8")) if path and path.is_file() else None
    except (yaml.YAMLError, ValueError):
        raise ConfigError(f"{name} names {path}, which is no YAML; correct or unset it") from None


def _explain(error: ValueError) -> str:
    """What is wrong, and where it is corrected."""
    if isinstance(error, tomllib.TOMLDecodeError):
        home = os.environ.get("PREFECT_HOME") or "~/.prefect"
        path = Path(os.environ.get("PREFECT_PROFILES_PATH") or f"{home}/profiles.toml").expanduser()
        return f"{path} is no TOML ({error}); correct it"
    unparsed = re.search(r'field "(\w+)" from source "Env', str(error))
    names = [
        name for name in os.environ if unparsed and name.startswith("PREFECT_") and name.endswith(unparsed[1].upper())
    ]
    if names:
        return f"{names[0]} is no JSON, as that setting expects; correct that variable"
    if not hasattr(error, "errors"):
        return f"{str(error).splitlines()[0]}; correct it in {FILES}"
    first = error.errors()[0]
    names = [name for name, value in os.environ.items() if name.startswith("PREFECT_") and value == first["input"]]
    where = names[0] if names else ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}; correct " + ("that variable" if names else f"it in {FILES}")
