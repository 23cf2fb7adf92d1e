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
TEXTS, LISTS = {"kind", "stage"}, {"patches"}
"""Of a row's values, those that are no numbers."""


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
    if not isinstance(kind, str) or kind not in KEYS or not row.keys() >= {*KEYS[kind]} or not _has_types(row):
        raise error(f"{name} is malformed: expected a row of kind {', '.join(KEYS)} with its numbers; {remedy}")
    return row


def _has_types(row: dict[str, Any]) -> bool:
    types = {**dict.fromkeys(TEXTS, str), **dict.fromkeys(LISTS, list)}
    return all(type(value) in ((types[key],) if key in types else (int, float)) for key, value in row.items())
