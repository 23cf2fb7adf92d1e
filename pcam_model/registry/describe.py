"""What the store knows of one run."""

import json
from typing import Any

from pcam_model.core.errors import ModelError
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.checkpoints import list_checkpoints
from pcam_model.registry.factory import open_store
from pcam_model.registry.run_status import read_status
from pcam_model.registry.runs import RunStore


def describe_run(store: str, name: str) -> dict[str, Any]:
    """Address, publication, config, finished steps, kept checkpoints and figures of a run.

    Raises:
        ModelError: the store has no such run.
    """
    run = RunStore(open_store(store), name)
    try:
        asked = json.loads(run.store.read(f"runs/{name}/config.json"))
    except NotFound:
        raise ModelError(f"there is no run {name!r} in {run.store.uri}; `pcam runs` lists what is there") from None
    published, report, split = run.find_published(), run.step_record("report"), run.step_record("split")
    return {
        "uri": run.uri,
        "published": published[0].published if published else "",
        "steps": run.steps(),
        "status": status.model_dump() if (status := read_status(run.store, name)) else None,
        "checkpoints": [kept.model_dump(mode="json") for kept in list_checkpoints(run)],
        "config": asked["config"],
        "environment": asked["environment"],
        "split": split["made"]["meaning"] if split else "",
        "figures": report["made"]["figures"] if report else {},
    }
