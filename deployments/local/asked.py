"""From what a user asks of `make train` to the flow's parameters."""

import shlex
from pathlib import Path
from typing import Any

from deployments.local import places
from pcam_model.core.errors import BadPlan, BadSource


def parameters(plan: str, source: str = "", run: str = "", settings: str = "", store: str = "") -> dict[str, Any]:
    """The flow's parameters, all of them: the plan file, then what was set by hand; every path made absolute."""
    from pcam_model.config import asked_plan  # knows the networks, so it takes seconds to import

    asked = asked_plan(Path(plan).expanduser(), _words(settings), source, store, run)
    return _absolute(asked.model_dump(mode="json"))


def _words(settings: str) -> list[str]:
    try:
        return shlex.split(settings)
    except ValueError as error:
        raise BadPlan(f"SET={settings}: {error}; write for example SET='tuned.epochs=3 seed=4'") from None


def _absolute(asked: dict[str, Any]) -> dict[str, Any]:
    """A worker has its own working directory: what is a path here must be one there."""
    source, network, store = asked["source"], asked["network"], asked["store"]
    for key in ("path", "slides"):
        if source.get(key) and "://" not in source[key]:
            source[key] = _existing(source[key], f"source.{key}")
    if network["weights"] not in ("", "imagenet", "none"):
        network["weights"] = _existing(network["weights"], "network.weights")
    store["uri"] = places.address(store["uri"]) if store["uri"] else places.store()
    return asked


def _existing(path: str, key: str) -> str:
    whole = Path(path).expanduser().resolve()
    if not whole.exists():
        raise BadSource(f"{path}: found nothing there ({whole}), expected a file or a folder; mend {key} and run again")
    return str(whole)
