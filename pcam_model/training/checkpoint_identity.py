"""Whether a checkpoint belongs to a training: its configuration, inputs and code are compared key by key."""

from pathlib import Path
from typing import Any

from pcam_model.core.errors import CheckpointMismatchError


def check_identity(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare a checkpoint's identity with this training's.

    Raises:
        CheckpointMismatchError: a key differs; names it.
    """
    before, now = flatten(found), flatten(expected)
    for key in sorted({*before, *now}):
        if before.get(key) == now.get(key):
            continue
        if key == "config.epochs":
            remedy = "training for more epochs is another learning rate cycle, so give this run another name"
        else:
            remedy = "give this run another name, or the same configuration"
        raise CheckpointMismatchError(
            f"{path} is a checkpoint of another training: its {key} is {before.get(key)}, here it is {now.get(key)}; "
            f"{remedy}"
        )


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as dotted ones: {"config": {"epochs": 3}} -> {"config.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
