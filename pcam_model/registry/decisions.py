"""What was decided of a challenger against a champion: kept beside the runs, which do not change."""

import json
from typing import Any

from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import json_bytes
from pcam_model.registry.run_names import validate_run_name

NOBODY = "nobody"


def save_decision(store: Store, challenger: str, champion: str, content: dict[str, Any]) -> None:
    """Write it down. `champion` may be empty: there was none."""
    store.write(_key(challenger, champion), json_bytes(content))


def find_decision(store: Store, challenger: str, champion: str) -> dict[str, Any] | None:
    """What was decided of this pair, or None."""
    try:
        return dict(json.loads(store.read(_key(challenger, champion))))
    except NotFound:
        return None


def _key(challenger: str, champion: str) -> str:
    return f"decisions/{validate_run_name(challenger)}/{validate_run_name(champion or NOBODY)}.json"
