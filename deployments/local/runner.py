"""`python -m deployments.local.runner FOLDER`: serve the deployments of the stack in FOLDER until stopped."""

import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

from prefect import serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.deployments.runner import RunnerDeployment
from prefect.states import Crashed

from deployments.local.stack import DEPLOYMENT, LOGS, OWN, PREFECT_HOME, STATE
from tasks.api_server import configured_url
from tasks.server_process import running_server


def main(folder: Path) -> None:
    """Write the deployments to the user's server, or to one that is started here, and run what is asked of them."""
    server = running_server(PREFECT_HOME, LOGS / "server.log")
    with ThreadPoolExecutor(1) as imports:
        pending = imports.submit(make_deployments, folder)  # imports torch, while the server starts
        with server if folder == OWN else nullcontext(configured_url()) as url:
            crash_unfinished_runs() if folder == OWN else None
            for deployment in (deployments := pending.result()):
                deployment.apply()
            (folder / STATE).write_text(url)
            serve(*deployments, pause_on_shutdown=False, print_starting_message=False, query_seconds=2)


def make_deployments(folder: Path) -> list[RunnerDeployment]:
    """The deployments of the preset sample: training, and at a server of ours, retraining."""
    from flows.full_train import full_train
    from flows.retrain import retrain
    from pcam_model.config_reader import preset_parameters

    sample = preset_parameters("sample")
    training = RunnerDeployment.from_flow(full_train, DEPLOYMENT[folder == OWN], parameters=sample, tags=["train"])
    retraining = RunnerDeployment.from_flow(retrain, "retrain", parameters=sample, tags=["train"], concurrency_limit=1)
    return [training, retraining] if folder == OWN else [training]


def crash_unfinished_runs() -> None:
    """End the runs that a stack left when it was stopped; scheduled ones wait for their time."""
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(end_time={"is_null_": True})):
            if not (run.auto_scheduled and run.state and run.state.is_scheduled()):
                client.set_flow_run_state(run.id, Crashed(message="the local stack was stopped"), force=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
