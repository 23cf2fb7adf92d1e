"""What a flow leaves in the store when it fails, crashes or is cancelled; hooks of Prefect, which may run elsewhere."""

import re
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging.loggers import flow_run_logger

from pcam_model.core.errors import PcamError
from pcam_model.core.paths import resolve_store_uri
from pcam_model.registry.backends.base import open_store
from pcam_model.registry.run_status import write_status


def default_run_name(name: str, job: str) -> str:
    """A run's name from those of Prefect's run: the same when Prefect runs this very run again."""
    return f"{re.sub(r'[^a-z0-9-]', '-', name.lower())}-{job[:4]}"


def leave(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Write the state beside the run in the store. Never raises: a hook must not hide what it reports."""
    logger = flow_run_logger(flow_run, flow)
    try:
        for one in _runs(flow_run):
            store_uri, run = _store_and_run(one)
            store = open_store(resolve_store_uri(store_uri))
            if write_status(store, run, state.name or state.type.value, state.message or "", str(flow_run.id)):
                logger.info("Run %s: %s, noted in %s; started again under this name it goes on", run, state.name,
                            store.uri)  # fmt: skip
    except (PcamError, OSError) as error:
        logger.warning("How the run ended could not be noted in the store: %s", error)


def _store_and_run(flow_run: FlowRun) -> tuple[str, str]:
    """The store's address and the run's name of a flow run, from its parameters."""
    config = flow_run.parameters.get("config") or {}
    keys = config if isinstance(config, dict) else config.model_dump(mode="json")
    uri = (keys.get("store") or {}).get("uri", "")
    return uri, keys.get("run") or default_run_name(flow_run.name, str(flow_run.id))


def _runs(flow_run: FlowRun) -> list[FlowRun]:
    """The flow run, or those that it has started where it only decides what to train."""
    if "promotion" not in flow_run.parameters:
        return [flow_run]
    with get_client(sync_client=True) as client:
        parents = FlowRunFilterParentFlowRunId(any_=[flow_run.id])
        return client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parents))


STATUS_HOOKS: dict[str, Any] = {"on_failure": [leave], "on_crashed": [leave], "on_cancellation": [leave]}
