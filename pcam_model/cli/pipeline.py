"""The pipeline's packages `flows` and `tasks`, which the installed package lacks: they are run from their checkout."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pcam_model
from pcam_model.core.errors import MissingPackageError, require_package
from pcam_model.core.paths import require_home

CHECKOUT = Path(pcam_model.__file__).parents[1]


def import_pipeline(module: str, command: str) -> ModuleType:
    """A module of `flows` or `tasks`, from the checkout that this package lies in.

    Raises:
        MissingPackageError: this package was installed without a checkout, or the extra `pipeline` is not installed.
        ConfigError: the user has no home folder, or Prefect's settings cannot be read.
    """
    if not (CHECKOUT / "flows").is_dir():
        raise MissingPackageError(
            f"{command} needs the pipeline, which runs from a checkout of pcam and is not part of the installed "
            "package; clone the repository, run `make setup` there, and use its .venv/bin/pcam"
        )
    if str(CHECKOUT) not in sys.path:
        sys.path.append(str(CHECKOUT))
    require_home(command)  # Prefect and Kaggle's client look for settings there
    with require_package(command, extra="pipeline"):
        importlib.import_module("tasks.prefect_settings").import_prefect()
        return importlib.import_module(module)
