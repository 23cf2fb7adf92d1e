"""Hooks of Prefect that record in the store how a run ended which was not published."""

import re
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from pcam_model.core.errors import PcamError
from pcam_model.core.paths import resolve_store_uri
from pcam_model.registry.factory import open_store
from pcam_model.registry.run_status import write_status


def default_run_name(flow_run_name: str, flow_run_id: str) -> str:
    """The name of a run that was given none: the same when Prefect runs this flow run again."""
    name, suffix = re.sub(r"[^a-z0-9-]", "-", flow_run_name.lower()), f"-{flow_run_id[:4]}"
    return name if name.endswith(suffix) else name + suffix  # the flow run is renamed to the run's name


def record_status(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Write the final state beside the run in the store. Never raises: a hook must not hide what it reports."""
    logger = flow_run_logger(flow_run, flow)
    try:
        for training_run in _training_runs(flow_run):
            store_uri, run = _store_and_run(training_run)
            store = open_store(resolve_store_uri(store_uri))
            if write_status(store, run, state.name or state.type.value, state.message or "", str(flow_run.id)):
                logger.info(
                    "Run %s: %s, recorded in %s; started again under this name, it resumes", run, state.name, store.uri
                )
    except (PcamError, OSError) as error:
        logger.warning("The run's final state could not be recorded in the store: %s", error)


def _store_and_run(flow_run: FlowRun) -> tuple[str, str]:
    """The store's address and the run's name of a flow run, from its parameters."""
    config = flow_run.parameters.get("config") or {}
    keys = config if isinstance(config, dict) else config.model_dump(mode="json")
    uri = (keys.get("store") or {}).get("uri", "")
    return uri, keys.get("run") or default_run_name(flow_run.name, str(flow_run.id))


def _training_runs(flow_run: FlowRun) -> list[FlowRun]:
    """The flow run itself; of a retraining, the training runs that it has started."""
    if "promotion" not in flow_run.parameters:
        return [flow_run]
    with get_client(sync_client=True) as client:
        parents = FlowRunFilterParentFlowRunId(any_=[flow_run.id])
        return client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parents))


STATUS_HOOKS: dict[str, Any] = {name: [record_status] for name in ("on_failure", "on_crashed", "on_cancellation")}
