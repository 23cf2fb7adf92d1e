"""What a run may be called, and how two configs or two manifests differ."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pcam_model.core.errors import ConfigError
from pcam_model.registry.manifest import Files

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
ABSENT = "nothing"


def validate_run_name(name: str) -> str:
    """The name itself, where a run may have it; else `ConfigError`."""
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name for a run; expected small letters, digits, '.', '_' and '-', beginning with a letter "
            "or a digit, 100 at most"
        )
    return name


def differences(before: Mapping[str, Any], after: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Each key whose value is another, by its dotted name, with both values."""
    for key in sorted({*before, *after}):
        old, new = before.get(key, ABSENT), after.get(key, ABSENT)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from differences(old, new, f"{above}{key}.")
        elif old != new:
            yield f"{above}{key} was {old}, is now {new}"


def changed(before: Files, after: Files) -> list[str]:
    """The files that are not the same in both, sorted."""
    return sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
