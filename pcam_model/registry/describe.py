"""Description of one run in a store."""

from typing import Any

from pcam_model.core.errors import ModelError
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.checkpoints import list_checkpoints
from pcam_model.registry.factory import open_store
from pcam_model.registry.run_status import read_status
from pcam_model.registry.runs import RunStore


def describe_run(store_uri: str, name: str) -> dict[str, Any]:
    """Address, publication, final state, configuration, finished steps, checkpoints and figures of a run, as JSON.

    Raises:
        ModelError: the store has no such run.
    """
    run = RunStore(open_store(store_uri), name)
    try:
        stored = run.config()
    except NotFound:
        raise ModelError(f"{run.store.uri} has no run {name!r}; `pcam runs` lists its runs") from None
    published, status = run.find_published(), read_status(run.store, name)
    report, split = run.step_record("report"), run.step_record("split")
    return {
        "uri": run.uri,
        "published_at": published[0].published_at if published else "",
        "steps": run.steps(),
        "status": status.model_dump() if status else None,
        "checkpoints": [checkpoint.model_dump(mode="json") for checkpoint in list_checkpoints(run)],
        "config": stored.config,
        "environment": stored.environment,
        "split": split["result"]["meaning"] if split else "",
        "figures": report["result"]["figures"] if report else {},
    }
