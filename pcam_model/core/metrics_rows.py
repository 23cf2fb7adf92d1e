"""Rows of `metrics.jsonl`: one JSON line per step and per epoch."""

from typing import Any

from pcam_model.core.errors import ModelError, PcamError
from pcam_model.core.parsing import RESTORE, parse_json

KEYS: dict[str, tuple[str, ...]] = {
    "step": ("epoch", "step", "loss"),
    "skipped": ("epoch", "step"),
    "epoch": ("epoch", "step", "valid_auc"),
}
"""Numbers that a row of each kind has."""


def parse_metrics(
    content: bytes, name: object, *, remedy: str = RESTORE, error: type[PcamError] = ModelError
) -> list[dict[str, Any]]:
    """All complete rows, each of a known kind with its numbers; a last line without its end is left out.

    Raises:
        error: a row is damaged; names its line.
    """
    lines = content.split(b"\n")[:-1]
    return [_parse_row(line, f"{name}, line {i}", remedy, error) for i, line in enumerate(lines, 1)]


def _parse_row(line: bytes, name: str, remedy: str, error: type[PcamError]) -> dict[str, Any]:
    row = parse_json(line, name, remedy=remedy, error=error)
    kind = row.get("kind")
    if kind not in KEYS or not all(isinstance(row.get(key), int | float) for key in KEYS[kind]):
        raise error(f"{name} is malformed: expected a row of kind {', '.join(KEYS)} with its numbers; {remedy}")
    return row
