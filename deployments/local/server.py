"""Run a deployment to its end, and serve the deployments (as a program), at the Prefect server of the environment."""

import logging
import os
import re
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect import serve
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.deployments import run_deployment
from prefect.states import Cancelling, Crashed

from deployments.local.stack import LOGS, OWN, STATE, server_url
from pcam_model.config_reader import preset_parameters
from pcam_model.core.errors import Interrupted, PcamError
from pcam_model.registry.describe import describe_run

CANCEL_TIMEOUT_S = 60
NAMES = {True: "full-train", False: "full-train-local"}  # at the user's server theirs stays what it is
# What Prefect says of itself, and the traceback that its engine prints a second time.
CHATTER = re.compile(
    "(Beginning|Downloading) flow|View at|Created task|Finished in|Executing|Engine exec|Running hook|Hook"
)


def run_to_the_end(folder: Path, parameters: dict[str, Any]) -> None:
    """Run the deployment, print its log and results; raises PcamError where it fails, Interrupted where cancelled."""
    name, url, seen = parameters["config"]["run"], os.environ["PREFECT_API_URL"], dict[UUID, str]()
    again = f"`make train RUN={name}` goes on with it"
    try:
        run = run_deployment(f"pcam/{NAMES[folder == OWN]}", parameters=parameters, flow_run_name=name, timeout=0)
        print(f"Run {name}: {url.removesuffix('/api')}/runs/flow-run/{run.id}", flush=True)
        with get_client(sync_client=True) as client:
            try:
                state = follow(client, folder, run.id, seen)
            except KeyboardInterrupt:
                client.set_flow_run_state(run.id, Cancelling())
                state = follow(client, folder, run.id, seen, CANCEL_TIMEOUT_S)
    except httpx.HTTPError as error:
        raise PcamError(f"the Prefect server at {url} fails ({error}); see that it runs, then {again}") from None
    if not state.is_final() or state.is_cancelled():
        raise Interrupted(f"run {name} is {state.name.lower()}; {again}")
    if not state.is_completed():
        raise PcamError(f"run {name} ended as {state.name}, expected Completed; mend what its log says, then {again}")
    about = describe_run(parameters["config"]["store"]["uri"], name)
    for part, figures in sorted(about["figures"].items(), reverse=True):  # valid, then test
        print(f"{part}: " + ", ".join(f"{key} {one['value']:.4f}" for key, one in figures.items()))
    print(f"Report: {about['uri']}/report\nModel:  {about['uri']}/model")


def follow(client: SyncPrefectClient, folder: Path, run: UUID, seen: dict[UUID, str], seconds: float = 1e9) -> Any:
    """Print the unseen lines of a run's log, until its final state or for so long; the state."""
    end = time.monotonic() + seconds
    while True:
        state = client.read_flow_run(run).state
        time.sleep(1.5)  # lines are sent in batches of a second
        lines = client.read_logs(LogFilter(flow_run_id={"any_": [run]}), 200, max(0, len(seen) - 100))  # some come late
        for line in lines:
            known = line.id in seen or (line.level >= logging.ERROR and line.message in seen.values())  # a task's too
            seen[line.id] = line.message
            ours = line.level >= logging.WARNING or line.name in ("prefect.flow_runs", "prefect.task_runs")
            if ours and not known and not CHATTER.match(line.message):
                print(f"{line.timestamp.astimezone():%H:%M:%S}  {line.message}", flush=True)
        if (state.is_final() and len(lines) < 200) or time.monotonic() > end:
            return state
        if not server_url(folder):
            raise PcamError(f"the local Prefect server or runner ended by itself; read why in {LOGS} and run again")


def main(folder: Path) -> None:
    """Write the deployments to the server and run what is started of them, until stopped."""
    from flows.full_train import full_train
    from flows.retrain import retrain

    sample = preset_parameters("sample")
    serve_here = [full_train.to_deployment(NAMES[folder == OWN], parameters=sample, tags=["train"])]
    with get_client(sync_client=True) as client:
        while client.api_healthcheck():
            time.sleep(0.2)
        if folder == OWN:  # where no run is under way yet
            serve_here += [retrain.to_deployment("retrain", parameters=sample, tags=["train"], concurrency_limit=1)]
            for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(end_time={"is_null_": True})):
                if not run.auto_scheduled or not run.state.is_scheduled():
                    client.set_flow_run_state(run.id, Crashed(message="the local stack was stopped"), force=True)
    for one in serve_here:
        one.apply()
    (folder / STATE).write_text(os.environ["PREFECT_API_URL"])
    serve(*serve_here, pause_on_shutdown=False, print_starting_message=False, query_seconds=2)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
