"""Which epochs' weights stay beside a stage that is under way: the last so many, and the best."""

from pathlib import Path
from typing import Any

from pcam_model.core.checkpoint_names import epoch_of


def prune_epoch_weights(folder: Path, epochs: list[dict[str, Any]], last: int, best: dict[str, Any]) -> None:
    """Remove the weights of every epoch but the last so many and the best of those that are measured."""
    stay = {row["epoch"] for row in [*epochs[-last:], best]} if last else set()
    for path in folder.iterdir():
        epoch = epoch_of(path.name)
        if epoch is not None and epoch not in stay:
            path.unlink()
