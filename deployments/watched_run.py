"""Run a deployment to its end and print its log: `prefect deployment run --watch` shows states alone."""

import logging
import re
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter
from prefect.client.schemas.objects import State
from prefect.settings import get_current_settings
from prefect.states import Cancelling

from pcam_model.core.errors import PcamError

CANCEL_TIMEOUT_S, POLL_S = 60, 1.5
# What Prefect says of itself, and the traceback that its engine prints a second time.
CHATTER = re.compile(
    "(Beginning|Downloading) flow|View at|Created task|Finished in|Executing|Engine exec|Running hook|Hook"
)


def run_watched(deployment: str, parameters: dict[str, Any], name: str, is_served: Callable[[], bool]) -> State[Any]:
    """Run a deployment under a name, print its log, and cancel it at an interrupt; its last state.

    Args:
        deployment: FLOW/NAME.
        parameters: of the flow; the deployment has those that are not given.
        name: the flow run's.
        is_served: whether its server and what runs it are still there.

    Raises:
        PcamError: the server fails, or the run is not served any more.
    """
    url, seen = str(get_current_settings().api.url), dict[UUID, str]()
    try:
        with get_client(sync_client=True) as client:
            served = client.read_deployment_by_name(deployment)
            run = client.create_flow_run_from_deployment(served.id, parameters=parameters, name=name).id
            print(f"Run {name}: {url.removesuffix('/api')}/runs/flow-run/{run}", flush=True)
            try:
                return _follow(client, run, seen, is_served)
            except KeyboardInterrupt:
                client.set_flow_run_state(run, Cancelling())
                return _follow(client, run, seen, is_served, CANCEL_TIMEOUT_S)
    except httpx.HTTPError as error:
        raise PcamError(f"the Prefect server at {url} fails ({error}); see that it runs, then run again") from None


def _follow(
    client: SyncPrefectClient,
    run: UUID,
    seen: dict[UUID, str],
    is_served: Callable[[], bool],
    seconds: float = float("inf"),
) -> State[Any]:
    """Print the unseen lines of a run's log, until its final state or for so long; the state."""
    end = time.monotonic() + seconds
    while True:
        state = client.read_flow_run(run).state
        assert state
        time.sleep(POLL_S)  # lines are sent in batches
        lines = client.read_logs(LogFilter(flow_run_id={"any_": [run]}), 200, max(0, len(seen) - 100))  # some come late
        for line in lines:
            known = line.id in seen or (line.level >= logging.ERROR and line.message in seen.values())  # a task's too
            seen[line.id] = line.message
            ours = line.level >= logging.WARNING or line.name in ("prefect.flow_runs", "prefect.task_runs")
            if ours and not known and not CHATTER.match(line.message):
                print(f"{line.timestamp.astimezone():%H:%M:%S}  {line.message}", flush=True)
        if (state.is_final() and len(lines) < 200) or time.monotonic() > end:
            return state
        if not is_served():
            raise PcamError("Prefect's server or runner ended by itself; read its log (in .pcam/logs) and run again")
