"""Callbacks of a training stage."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _ignore(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Callbacks:
    """Callbacks for progress and epoch metrics."""

    on_progress: Callable[[int, int], None] = _ignore
    """Called with the number of patches trained on, and the number in all."""
    on_epoch: Callable[[dict[str, Any]], None] = _ignore
    """Called with an epoch's row of `metrics.jsonl`."""
