"""What Prefect adds: `pcam train` as a flow on a running server, less the same steps called as plain functions.

    python -m benchmarks.orchestration [--patches 400]

About 3 minutes; writes benchmarks/results/orchestration.json.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

from benchmarks.machine import write_result
from pcam_model.config import TrainConfig
from pcam_model.config_reader import read_config

COMMAND = "python -m benchmarks.orchestration"
ROUNDS = 3
LIMIT = 10.0  # seconds


def make_config(patches: int, run: str) -> TrainConfig:

    keys = f"source.max_patches={patches} model.arch=resnet18 model.weights=none model.image_size=32 run={run}"
    return read_config(None, [*keys.split(), "lr_finder.steps=30", "frozen.epochs=1", "finetune.epochs=2"])


def timed(flow: Callable[..., Any], config: TrainConfig) -> float:
    start = time.monotonic()
    flow(config)
    return time.monotonic() - start


def plain(config: TrainConfig) -> float:
    """The flow's own body, with every task replaced by the function that it wraps."""
    from flows.full_train import full_train
    from tasks import checking, data, publishing, scoring, training

    with mock.patch("tasks.progress.ARTIFACTS.put"), without_tasks(checking, data, publishing, scoring, training):
        return timed(full_train.fn, config)


@contextmanager
def without_tasks(*modules: ModuleType) -> Iterator[None]:
    from prefect.tasks import Task

    members = [(module, name, getattr(module, name)) for module in modules for name in dir(module)]
    with ExitStack() as stack:
        for module, name, task in members:
            if isinstance(task, Task):
                stack.enter_context(mock.patch.object(module, name, task.fn))
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=400)
    patches = parser.parse_args().patches
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"PCAM_CACHE": f"{home}/cache", "PCAM_STORE": f"file://{home}/store", "PREFECT_HOME": f"{home}/p"}
        from prefect.testing.utilities import prefect_test_harness

        from flows.full_train import full_train

        plain(make_config(patches, "warm-up"))
        with prefect_test_harness(server_startup_timeout=120):
            rounds = [
                (
                    timed(full_train, make_config(patches, f"flow-{number}")),
                    plain(make_config(patches, f"plain-{number}")),
                )
                for number in range(ROUNDS)
            ]
    figures = {
        "patches": patches,
        "seconds": [{"flow": round(flow, 2), "plain": round(bare, 2)} for flow, bare in rounds],
        "overhead_seconds": round(sorted(flow - bare for flow, bare in rounds)[ROUNDS // 2], 2),
        "limit_seconds": LIMIT,
    }
    write_result("orchestration", COMMAND, figures)


if __name__ == "__main__":
    main()
