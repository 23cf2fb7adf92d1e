"""Several processes that share each batch train as one does, and the death of one ends the stage at once."""

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

from pcam_model.core.checkpoint_names import LATEST
from pcam_model.core.errors import ConfigError, Interrupted, TransientError
from pcam_model.data.pack import build_pack
from pcam_model.data.source import SourceConfig, fetch
from pcam_model.data.split import SplitConfig, make_split
from pcam_model.training import distributed_job
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.checkpoint import Checkpoint, read_checkpoint_metadata
from pcam_model.training.context import TrainingContext, load_network
from pcam_model.training.device import ComputeConfig
from pcam_model.training.distributed_job import JOB_FILE, LAUNCHER, MODULE, RESULT_FILE, DistributedJob, run_distributed
from pcam_model.training.metrics_log import read_metrics
from pcam_model.training.network import ModelConfig
from pcam_model.training.stage import FinetuneConfig, Stage

STAGE = Stage(
    name="finetune", config=FinetuneConfig(epochs=2, batch_size=9, ema_fraction=0, no_warp_fraction=0)
).with_inputs({})


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> TrainingContext:
    home, config = tmp_path_factory.mktemp("pack"), SourceConfig(kind="sample", max_patches=60)
    pack = build_pack(fetch(config, 0), config, home, 0)
    split = make_split(pack, SplitConfig(), home / "split")
    network = ModelConfig.model_validate({"arch": "resnet18", "weights": "none", "image_size": 32})
    return TrainingContext(pack=pack, split=split, model=network, seed=3, compute=ComputeConfig(precision="fp32"))


@pytest.fixture(scope="module")
def alone(context: TrainingContext, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Checkpoint]:
    folder = tmp_path_factory.mktemp("alone")
    return folder, job(context, folder).trainer(Callbacks()).run()


def job(context: TrainingContext, folder: Path, steps: int = 0) -> DistributedJob:
    folder.mkdir(parents=True, exist_ok=True)
    compute = context.compute.model_copy(update={"checkpoint_steps": steps})
    changed = context.model_copy(update={"compute": compute})
    return DistributedJob(context=changed, stage=STAGE, max_lr=1e-5, start=None, folder=str(folder))


def assert_alike(folder: Path, end: Checkpoint, alone: tuple[Path, Checkpoint], context: TrainingContext) -> None:
    """Compare losses and weight changes up to rounding, which AdamW's first steps make larger."""
    losses, expected = (
        [row["loss"] for row in read_metrics(path / "metrics.jsonl") if row["kind"] == "step"]
        for path in (folder, alone[0])
    )
    assert losses == pytest.approx(expected, rel=1e-3)
    start, ours, theirs = load_network(context, None).state_dict(), load_file(end.path), load_file(alone[1].path)
    names = [name for name, tensor in start.items() if tensor.is_floating_point()]
    for chosen in ([name for name in names if "running" in name], [name for name in names if "running" not in name]):
        change, expected_change = (torch.cat([(to[n] - start[n]).flatten() for n in chosen]) for to in (ours, theirs))
        assert float((change - expected_change).norm() / expected_change.norm()) < 0.1
    assert ours["body.bn1.num_batches_tracked"] == theirs["body.bn1.num_batches_tracked"] == 8


@pytest.mark.slow
def test_two_processes_stop_at_a_signal_after_the_same_step_and_end_as_one_does(
    context: TrainingContext, tmp_path: Path, alone: tuple[Path, Checkpoint]
) -> None:
    epochs: list[int] = []

    def stop(done: int, total: int) -> None:
        if done == 2 * 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="finetune training stopped by SIGTERM"):
        run_distributed(job(context, tmp_path), 2, Callbacks(on_progress=stop))
    assert read_checkpoint_metadata(tmp_path / LATEST)["step"] >= 2
    end = run_distributed(job(context, tmp_path), 2, Callbacks(on_epoch=lambda row: epochs.append(row["epoch"])))
    assert_alike(tmp_path, end, alone, context)
    assert epochs == [1, 2]


@pytest.mark.slow
def test_a_dead_process_ends_the_stage_in_seconds_and_another_number_goes_on(
    context: TrainingContext, tmp_path: Path, alone: tuple[Path, Checkpoint]
) -> None:
    killed_at: list[float] = []

    def kill_one(done: int, total: int) -> None:
        if done >= 3 * 9 and not killed_at:
            killed_at.append(time.monotonic())
            os.kill(children(os.getpid())[-1], signal.SIGKILL)

    with pytest.raises(TransientError, match="one of the 2 processes of the finetune training died"):
        run_distributed(job(context, tmp_path, steps=1), 2, Callbacks(on_progress=kill_one))
    assert time.monotonic() - killed_at[0] < 60
    assert (tmp_path / LATEST).is_file()
    end = job(context, tmp_path).trainer(Callbacks()).run()
    assert any(row["step"] >= 3 for row in read_metrics(tmp_path / "metrics.jsonl"))
    assert_alike(tmp_path, end, alone, context)


def test_torchrun_prints_no_traceback_of_its_own_where_a_process_dies_or_a_signal_comes(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", LAUNCHER, "--standalone", "--nproc-per-node", "1", "--no-python", "/bin/sh", "-c"]
    died = subprocess.run([*torchrun, "exit 3"], capture_output=True, text=True)
    assert (died.returncode, "Traceback" in died.stderr) == (1, False)
    assert "exitcode: 3" in died.stderr
    started = tmp_path / "started"
    with subprocess.Popen([*torchrun, f"touch {started}; exec sleep 60"], stderr=subprocess.PIPE, text=True) as told:
        while not started.exists() and told.poll() is None:
            time.sleep(0.1)
        told.terminate()
        assert "Traceback" not in told.communicate()[1]
    assert told.returncode == 128 + signal.SIGTERM


def test_the_error_of_a_process_is_raised_again(context: TrainingContext, tmp_path: Path) -> None:
    config = STAGE.config.model_copy(update={"batch_size": 64})
    wrong = job(context, tmp_path).model_copy(update={"stage": STAGE.model_copy(update={"config": config})})
    with pytest.raises(ConfigError, match=r"finetune\.batch_size is 64, but the training split has only 43 patches"):
        run_distributed(wrong, 1, Callbacks())


def test_several_machines_meet_at_the_configured_rendezvous(
    context: TrainingContext, tmp_path: Path, messages: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(distributed_job, "_follow", lambda command, *_: commands.append(command))
    compute = context.compute.model_copy(update={"nnodes": 2, "rdzv_endpoint": "first:29400"})
    with pytest.raises(TransientError):
        run_distributed(job(context.model_copy(update={"compute": compute}), tmp_path), 1, Callbacks())
    options = "--nnodes 2 --rdzv-backend c10d --rdzv-endpoint first:29400 --nproc-per-node 1"
    assert options in " ".join(commands[0])
    assert f"torchrun {options} -m {MODULE} {tmp_path / JOB_FILE}" in messages.text


@pytest.mark.slow
def test_two_machines_meet_at_a_rendezvous(
    context: TrainingContext, tmp_path: Path, alone: tuple[Path, Checkpoint]
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    compute = context.compute.model_copy(update={"nnodes": 2, "rdzv_endpoint": endpoint})
    shared = job(context.model_copy(update={"compute": compute}), tmp_path)
    joined: list[subprocess.Popen[bytes]] = []

    def join() -> None:
        while not (tmp_path / JOB_FILE).exists():
            time.sleep(0.1)
        options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint]
        torchrun = [sys.executable, "-m", "torch.distributed.run", *options, "-m", MODULE]
        joined.append(subprocess.Popen([*torchrun, str(tmp_path / JOB_FILE)]))

    other = threading.Thread(target=join)
    other.start()
    end = run_distributed(shared, 1, Callbacks())
    other.join()
    assert joined[0].wait(60) == 0
    assert_alike(tmp_path, end, alone, context)
    assert not (tmp_path / RESULT_FILE).exists()


def children(pid: int) -> list[int]:
    """Ids of the training processes below this one."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if b"pcam_model.training.distributed_job" in words and LAUNCHER.encode() not in words and is_below(parent, pid):
            pids.append(int(path.name))
    return sorted(pids)


def is_below(pid: int, ancestor: int) -> bool:
    while pid > 1:
        if pid == ancestor:
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
