"""How a run ended that was not published: beside the run, until it goes on."""

import json

from pydantic import ValidationError

from pcam_model.core.schema import Record
from pcam_model.registry.manifest import encoded, now
from pcam_model.registry.run_names import run_name
from pcam_model.registry.backends.base import NotThere, Store


class Ending(Record):
    """The last that was heard of a run."""

    state: str
    """Failed, Crashed, Cancelled or TimedOut."""
    message: str
    when: str
    """ISO 8601, UTC."""
    job: str = ""
    """What the orchestration calls the job that ended so."""


def leave_ending(store: Store, run: str, state: str, message: str, job: str = "") -> bool:
    """Write down how a run ended; False where the store does not know the run, or has it published."""
    if store.stat(f"runs/{run_name(run)}/plan.json") is None or store.stat(f"runs/{run}/manifest.json") is not None:
        return False
    store.write(_key(run), encoded(Ending(state=state, message=message, when=now(), job=job).model_dump()))
    return True


def find_ending(store: Store, run: str) -> Ending | None:
    """How it ended, or None."""
    try:
        return Ending.model_validate_json(store.read(_key(run)))
    except (NotThere, ValidationError, json.JSONDecodeError):
        return None


def forget_ending(store: Store, run: str) -> None:
    """It goes on."""
    store.delete(_key(run))


def _key(run: str) -> str:
    return f"runs/{run_name(run)}/ending.json"
