"""Decisions of comparisons of a challenger with a champion, stored beside the runs, which do not change."""

from typing import Any

from pcam_model.core.parsing import parse_json
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import json_bytes
from pcam_model.registry.run_names import validate_run_name

NO_CHAMPION = "none"
REMEDY = "delete it, and the comparison is made again"


def save_decision(store: Store, challenger: str, champion: str, decision: dict[str, Any]) -> None:
    """Store the decision of a comparison; `champion` is empty where there was none."""
    store.write(_key(challenger, champion), json_bytes(decision))


def find_decision(store: Store, challenger: str, champion: str) -> dict[str, Any] | None:
    """The stored decision of this comparison, or None. Raises ModelError where it is damaged."""
    key = _key(challenger, champion)
    try:
        return parse_json(store.read(key), f"{store.uri}/{key}", remedy=REMEDY)
    except NotFound:
        return None


def _key(challenger: str, champion: str) -> str:
    return f"decisions/{validate_run_name(challenger)}/{validate_run_name(champion or NO_CHAMPION)}.json"
