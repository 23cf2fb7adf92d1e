"""Description of one run in a store."""

from typing import Any, TypeVar

from pydantic import ConfigDict

from pcam_model.core.errors import ModelError
from pcam_model.core.estimate import Estimate
from pcam_model.core.parsing import parse_value
from pcam_model.core.schema import Record
from pcam_model.registry.backends.base import NotFound
from pcam_model.registry.checkpoints import list_checkpoints
from pcam_model.registry.factory import open_store
from pcam_model.registry.run_status import read_status
from pcam_model.registry.runs import RunStore

R = TypeVar("R", bound=Record)


class SplitResult(Record):
    """What is described of the record of the step `split`; its other keys may be any."""

    model_config = ConfigDict(extra="ignore")

    meaning: str


class ReportResult(Record):
    """What is described of the record of the step `report`; its other keys may be any."""

    model_config = ConfigDict(extra="ignore")

    figures: dict[str, dict[str, Estimate]]


def describe_run(store_uri: str, name: str) -> dict[str, Any]:
    """Address, publication, final state, configuration, finished steps, checkpoints and figures of a run, as JSON.

    Raises:
        ModelError: the store has no such run, or one of its records is damaged.
    """
    run = RunStore(open_store(store_uri), name)
    try:
        stored = run.config()
    except NotFound:
        raise ModelError(f"{run.store.uri} has no run {name!r}; `pcam runs` lists its runs") from None
    published, status = run.find_published(), read_status(run.store, name)
    report, split = _result(run, "report", ReportResult), _result(run, "split", SplitResult)
    return {
        "uri": run.uri,
        "published_at": published[0].published_at if published else "",
        "steps": run.steps(),
        "status": status.model_dump() if status else None,
        "checkpoints": [checkpoint.model_dump(mode="json") for checkpoint in list_checkpoints(run)],
        "config": stored.config,
        "environment": stored.environment,
        "split": split.meaning if split else "",
        "figures": report.model_dump(mode="json")["figures"] if report else {},
    }


def _result(run: RunStore, step: str, kind: type[R]) -> R | None:
    """The result in the record of a finished step, else None. Raises ModelError where it is damaged."""
    record = run.step_record(step)
    return None if record is None else parse_value(kind, record.get("result"), f"{run.uri}/{step}/step.json")
