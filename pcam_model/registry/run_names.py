"""Names of runs, and differences between configurations and between manifests."""

import os
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pcam_model.core.errors import ConfigError
from pcam_model.registry.manifest import Files

NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
ABSENT = "nothing"


def new_run_name() -> str:
    """A name for a run that was given none: the time and this process's id, as in `20261128-124300-4711`."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"


def validate_run_name(name: str) -> str:
    """The name itself. Raises ConfigError where a run cannot have it."""
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a run; expected small letters, digits, '.', '_' and '-', beginning with a letter "
            "or a digit, 100 at most"
        )
    return name


def differences(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Each key whose value differs, by its dotted name, as in `finetune.epochs was 3, is now 4`."""
    for key in sorted({*before, *after}):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{prefix}{key}.")
        elif old != new:
            yield f"{prefix}{key} was {old}, is now {new}"


def changed_files(before: Files, after: Files) -> list[str]:
    """The paths whose file differs or is missing in one of the two, sorted."""
    return sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
