"""A schedule of retraining where nothing is new, and the process that answers it."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

from benchmarks.chaos_runs import CONFIG

DEPLOYMENT = "soak"
INTERVAL_S = 5
LIMIT_S = 300.0
STOP_TIMEOUT_S = 60


@contextmanager
def scheduled_retrains(folder: Path) -> Iterator[psutil.Process]:
    """Serve a deployment of `retrain` that is asked for every few seconds, one at a time; its process."""
    with (folder / "runner.log").open("wb") as log:
        runner = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.soak_schedule"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield psutil.Process(runner.pid)
    finally:
        runner.terminate()
        runner.wait(STOP_TIMEOUT_S)


def finished_runs(count: int) -> Iterator[FlowRun]:
    """Each scheduled run once it has ended, so many.

    Raises:
        RuntimeError: one has failed, or none ends for minutes.
    """
    seen: set[object] = set()
    with get_client(sync_client=True) as client:
        end = time.monotonic() + LIMIT_S
        while len(seen) < count:
            ended = client.read_flow_runs(
                flow_run_filter=FlowRunFilter(end_time={"is_null_": False}),
                deployment_filter=DeploymentFilter(name={"any_": [DEPLOYMENT]}), limit=10,
                sort=FlowRunSort.END_TIME_DESC,
            )  # fmt: skip
            for run in reversed([run for run in ended if run.id not in seen]):
                if run.state is None or not run.state.is_completed():
                    raise RuntimeError(f"retraining {run.name} ended as {run.state}")
                seen.add(run.id)
                end = time.monotonic() + LIMIT_S
                yield run
            if time.monotonic() > end:
                raise RuntimeError(f"no retraining has ended for {LIMIT_S:.0f} s")
            time.sleep(0.5)


def main() -> None:
    """Serve the deployment until stopped."""
    from prefect import serve
    from prefect.deployments.runner import RunnerDeployment

    from flows.retrain import retrain
    from pcam_model.config_reader import read_config

    config = read_config(None, [*CONFIG, "source.kind=sample"]).model_dump(mode="json")
    deployment = RunnerDeployment.from_flow(
        retrain, DEPLOYMENT, parameters={"config": config}, interval=timedelta(seconds=INTERVAL_S)
    )
    serve(deployment, pause_on_shutdown=False, print_starting_message=False, query_seconds=2, limit=1)


if __name__ == "__main__":
    main()
