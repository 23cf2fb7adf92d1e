"""How a run ended that is not published, stored beside it until it resumes."""

import json

from pydantic import ValidationError

from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound, Store
from pcam_model.registry.manifest import json_bytes, utc_now
from pcam_model.registry.run_names import validate_run_name


class RunStatus(Record):
    """The final state of the last flow run that trained a run."""

    state: str
    """Prefect's name of it: Failed, Crashed, Cancelled or TimedOut."""
    message: str
    time: str
    """ISO 8601, UTC."""
    flow_run_id: str = ""


def write_status(store: Store, run: str, state: str, message: str, flow_run_id: str = "") -> bool:
    """Store how a run ended; False, and nothing is written, where it is unknown to the store or published."""
    if store.stat(f"runs/{validate_run_name(run)}/config.json") is None:
        return False
    if store.stat(f"runs/{run}/manifest.json") is not None:
        return False
    status = RunStatus(state=state, message=message, time=utc_now(), flow_run_id=flow_run_id)
    store.write(_key(run), json_bytes(status.model_dump()))
    return True


def read_status(store: Store, run: str) -> RunStatus | None:
    """How the run ended; None where it has not, or has resumed since."""
    try:
        return RunStatus.model_validate_json(store.read(_key(run)))
    except (NotFound, ValidationError, json.JSONDecodeError):
        return None


def clear_status(store: Store, run: str) -> None:
    """Delete the status, as the run resumes."""
    store.delete(_key(run))


def _key(run: str) -> str:
    return f"runs/{validate_run_name(run)}/status.json"
