"""How a run ended that was not published: beside the run, until it goes on."""

import json

from pydantic import ValidationError

from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import json_bytes, now
from pcam_model.registry.run_names import validate_run_name


class RunStatus(Record):
    """The last that was heard of a run."""

    state: str
    """Failed, Crashed, Cancelled or TimedOut."""
    message: str
    time: str
    """ISO 8601, UTC."""
    flow_run_id: str = ""
    """What the orchestration calls the job that ended so."""


def write_status(store: Store, run: str, state: str, message: str, flow_run_id: str = "") -> bool:
    """Write down how a run ended; False where the store does not know the run, or has it published."""
    if (
        store.stat(f"runs/{validate_run_name(run)}/config.json") is None
        or store.stat(f"runs/{run}/manifest.json") is not None
    ):
        return False
    store.write(
        _key(run), json_bytes(RunStatus(state=state, message=message, time=now(), flow_run_id=flow_run_id).model_dump())
    )
    return True


def read_status(store: Store, run: str) -> RunStatus | None:
    """How it ended, or None."""
    try:
        return RunStatus.model_validate_json(store.read(_key(run)))
    except (NotFound, ValidationError, json.JSONDecodeError):
        return None


def clear_status(store: Store, run: str) -> None:
    """It goes on."""
    store.delete(_key(run))


def _key(run: str) -> str:
    return f"runs/{validate_run_name(run)}/ending.json"
