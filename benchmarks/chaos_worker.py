"""A run of a deployment by a worker of Prefect, which is killed."""

import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists

from benchmarks.chaos_fault import Broken, Fault
from benchmarks.chaos_runs import CONFIG, NAME, Home
from pcam_model.config_reader import read_config

ROOT = Path(__file__).parents[1]
POOL, POOL_TYPE = "chaos", "process"
WORKER_START_S = 15.0
ENGINE = "prefect.flow_engine"


def worker_killed(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the worker that has begun a run, with the run or alone: its output goes nowhere then, which may end it."""
    deploy(home)
    with (home.folder / "output.txt").open("a") as output:
        words = ("-m", "prefect", "--no-prompt", "worker", "start", "--pool", POOL, "--type", POOL_TYPE)
        worker = subprocess.Popen(
            [sys.executable, *words, "--name", home.folder.name, "--work-queue", home.folder.name],
            env=home.environment | {"PREFECT_WORKER_QUERY_SECONDS": "2"}, cwd=home.folder,
            stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    moment, both = draw.uniform(WORKER_START_S / 2, WORKER_START_S + seconds), draw.random() < 0.5
    time.sleep(moment)
    runs = psutil.Process(worker.pid).children(recursive=True)
    worker.kill()
    worker.wait()
    if both:
        for run in runs:
            run.kill()
    psutil.wait_procs(runs, home.limit_s)
    what = f"worker killed after {moment:.1f} s, {len(runs)} processes of its run {'too' if both else 'left alone'}"
    return Broken(f"{what}: {'' if home.is_published() else 'not '}published")


def deploy(home: Home) -> None:
    """Ask for a run of the deployment `pcam/chaos`, by a worker of this home's queue."""
    settings: dict[str, Any] = read_config(None, [*CONFIG, f"run={NAME}"]).model_dump(mode="json")
    with get_client(sync_client=True) as client:
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type=POOL_TYPE))
        flow: Any = Flow.from_source(str(ROOT), "flows/full_train.py:full_train")
        deployment = flow.deploy(
            f"chaos-{home.folder.name}", POOL, work_queue_name=home.folder.name, parameters={"config": settings},
            print_next_steps=False, ignore_warnings=True,
        )  # fmt: skip
        client.create_flow_run_from_deployment(deployment)


WORKER_FAULTS: dict[str, Fault] = {"Prefect worker killed": Fault(worker_killed, cause=r".")}
