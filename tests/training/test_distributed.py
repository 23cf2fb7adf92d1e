"""Several processes that share each batch train as one does, and one that dies holds nobody up."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pcam_model.core.errors import ConfigError, Interrupted, TransientError
from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.data.split import SplitConfig, make_split
from pcam_model.training.checkpoint import LATEST, Checkpoint
from pcam_model.training.context import TrainingContext, load_network
from pcam_model.training.device import ComputeConfig
from pcam_model.training.distributed_job import MADE, DistributedJob, run_distributed
from pcam_model.training.metrics_log import read_metrics
from pcam_model.training.network import ModelConfig
from pcam_model.training.stage import FinetuneConfig, Stage
from pcam_model.training.trainer import Callbacks

STAGE = Stage(
    name="finetune", config=FinetuneConfig(epochs=2, batch_size=9, ema_fraction=0, no_warp_fraction=0)
).resting_on({})


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> TrainingContext:
    home, config = tmp_path_factory.mktemp("pack"), SourceConfig(kind="sample", max_patches=60)
    pack = build_pack(fetch(config, 0), config, home, 0)
    sides = make_split(pack, SplitConfig(), home / "split")
    network = ModelConfig.model_validate({"name": "resnet18", "weights": "none", "size": 32})
    return TrainingContext(pack=pack, split=sides, model=network, seed=3, compute=ComputeConfig(precision="fp32"))


@pytest.fixture(scope="module")
def alone(context: TrainingContext, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, job(context, folder).trainer(Callbacks()).run()


def job(context: TrainingContext, folder: Path, steps: int = 0) -> DistributedJob:
    folder.mkdir(parents=True, exist_ok=True)
    compute = context.compute.model_copy(update={"checkpoint_steps": steps})
    changed = context.model_copy(update={"compute": compute})
    return DistributedJob(context=changed, stage=STAGE, max_lr=1e-5, start=None, folder=str(folder))


def alike(folder: Path, end: Checkpoint, alone: tuple[Path, Checkpoint], context: TrainingContext) -> None:
    """The same losses and the same way from the same start, up to rounding (which AdamW's first steps make larger)."""
    kept, expected = (
        [row["loss"] for row in read_metrics(place / "metrics.jsonl") if row["kind"] == "step"]
        for place in (folder, alone[0])
    )
    assert kept == pytest.approx(expected, rel=1e-3)
    start, ours, theirs = load_network(context, None).state_dict(), load_file(end.path), load_file(alone[1].path)
    names = [name for name, tensor in start.items() if tensor.is_floating_point()]
    for chosen in ([name for name in names if "running" in name], [name for name in names if "running" not in name]):
        way, expected_way = (torch.cat([(to[n] - start[n]).flatten() for n in chosen]) for to in (ours, theirs))
        assert float((way - expected_way).norm() / expected_way.norm()) < 0.1
    assert ours["body.bn1.num_batches_tracked"] == theirs["body.bn1.num_batches_tracked"] == 8


def test_two_processes_train_as_one_does(
    context: TrainingContext, tmp_path: Path, alone: tuple[Path, Checkpoint]
) -> None:
    told: list[int] = []
    end = run_distributed(job(context, tmp_path), 2, Callbacks(epoch=lambda row: told.append(row["epoch"])))
    alike(tmp_path, end, alone, context)
    assert told == [1, 2]


def test_a_dead_process_ends_the_stage_in_seconds_and_another_number_goes_on(
    context: TrainingContext, tmp_path: Path, alone: tuple[Path, Checkpoint]
) -> None:
    fallen: list[float] = []

    def fell(done: int, total: int) -> None:
        if done >= 3 * 9 and not fallen:
            fallen.append(time.monotonic())
            os.kill(children(os.getpid())[-1], signal.SIGKILL)

    with pytest.raises(TransientError, match="one of the 2 processes of the finetune training died"):
        run_distributed(job(context, tmp_path, steps=1), 2, Callbacks(progress=fell))
    assert time.monotonic() - fallen[0] < 60
    assert (tmp_path / LATEST).is_file()
    end = job(context, tmp_path).trainer(Callbacks()).run()
    assert any(row["step"] >= 3 for row in read_metrics(tmp_path / "metrics.jsonl"))
    alike(tmp_path, end, alone, context)


def test_a_signal_stops_all_of_them_after_the_same_step(context: TrainingContext, tmp_path: Path) -> None:
    def asked(done: int, total: int) -> None:
        if done == 2 * 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="finetune training stopped by SIGTERM"):
        run_distributed(job(context, tmp_path), 2, Callbacks(progress=asked))
    assert (tmp_path / LATEST).is_file()
    assert job(context, tmp_path).trainer(Callbacks()).state.step >= 2


def test_what_a_process_finds_wrong_is_said_in_its_sentence(context: TrainingContext, tmp_path: Path) -> None:
    config = STAGE.config.model_copy(update={"batch": 64})
    wrong = job(context, tmp_path).model_copy(update={"stage": STAGE.model_copy(update={"config": config})})
    with pytest.raises(ConfigError, match="finetune.batch_size is 64, but the training part has only 43 patches"):
        run_distributed(wrong, 2, Callbacks())


def test_two_machines_meet_at_a_rendezvous(
    context: TrainingContext, tmp_path: Path, alone: tuple[Path, Checkpoint]
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"localhost:{free.getsockname()[1]}"
    compute = context.compute.model_copy(update={"machines": 2, "rendezvous": where})
    shared = job(context.model_copy(update={"compute": compute}), tmp_path)
    said: list[subprocess.Popen[bytes]] = []

    def join() -> None:
        while not (tmp_path / ".job.json").exists():
            time.sleep(0.1)
        words = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", where]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *words, "-m", "pcam_model.training.distributed_job"]
        said.append(subprocess.Popen([*torchrun, str(tmp_path / ".job.json")]))

    other = threading.Thread(target=join)
    other.start()
    end = run_distributed(shared, 1, Callbacks())
    other.join()
    assert said[0].wait(60) == 0
    alike(tmp_path, end, alone, context)
    assert not (tmp_path / MADE).exists()


def children(pid: int) -> list[int]:
    """All processes below this one that take part in a training."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if (
            b"pcam_model.training.distributed_job" in words
            and b"torch.distributed.run" not in words
            and above(parent, pid)
        ):
            found.append(int(path.name))
    return sorted(found)


def above(pid: int, wanted: int) -> bool:
    while pid > 1:
        if pid == wanted:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
