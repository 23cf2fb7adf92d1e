"""A stage as a job for several processes: written down, started with `torchrun`, followed, and its outcome read back.

On another machine that shares the folder, the same job is joined with

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:PORT -m pcam_model.training.distributed_job JOB
"""

import json
import os
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pcam_model.core import errors
from pcam_model.core.errors import Interrupted, PcamError, TransientError
from pcam_model.core.files import write_atomic
from pcam_model.core.schema import Record
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network, parts
from pcam_model.training.device import tune_malloc
from pcam_model.training.distributed import dist_context
from pcam_model.training.interrupt import RESUME_HINT, StopRequest, graceful_stop
from pcam_model.training.stage import Stage
from pcam_model.training.trainer import Callbacks, Trainer

JOB, MADE, FAILED = ".job.json", ".made.json", ".failed.json"
TOLD = "@pcam "  # begins a line that tells of progress
GRACE = 20  # seconds that a stopped group has to save itself


class DistributedJob(Record):
    """All that a process needs to know to take part."""

    context: TrainingContext
    stage: Stage
    max_lr: float
    start: Checkpoint | None
    folder: str

    def fit(self, callbacks: Callbacks) -> Trainer:
        """The training, in this process, with its share of every batch where it is one of several."""
        read = parts(self.context)
        return Trainer(
            self.stage.prepare(load_network(self.context, self.start)), read.batches["train"], read.batches["valid"],
            self.stage, self.max_lr, self.context.seed, Path(self.folder), callbacks, self.context.compute,
            dist_context(),
        )  # fmt: skip


def run_distributed(job: DistributedJob, dist: int, callbacks: Callbacks) -> Checkpoint:
    """Train in so many processes on this machine, and on others where the config has more; the end's checkpoint.

    Raises:
        PcamError: what a process found wrong.
        Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
        TransientError: a process died; trying again goes on from the last checkpoint, with as many as there are then.
    """
    folder = Path(job.folder)
    for name in (MADE, FAILED):
        (folder / name).unlink(missing_ok=True)
    path = write_atomic(folder / JOB, job.model_dump_json().encode())
    with graceful_stop() as stop:
        code = _follow(_command(job, dist, path), stop, callbacks)
        if stop.asked and not (folder / MADE).exists():
            raise Interrupted(f"{job.stage.name} training stopped by {stop.asked.name}; {RESUME_HINT}")
    if (folder / MADE).exists():
        made = Checkpoint.model_validate_json((folder / MADE).read_bytes())
        for name in (JOB, MADE):
            (folder / name).unlink(missing_ok=True)
        return made
    if (folder / FAILED).exists():
        failed = json.loads((folder / FAILED).read_bytes())
        raise getattr(errors, failed["kind"])(failed["sentence"])
    raise TransientError(
        f"one of the {dist} processes of the {job.stage.name} training died (torchrun ended with {code}); what was "
        "saved is kept, and the training goes on from there"
    )


def _command(job: DistributedJob, dist: int, path: Path) -> list[str]:
    compute = job.context.compute
    where = ["--standalone"]
    if compute.nnodes > 1:
        where = ["--nnodes", str(compute.nnodes), "--rdzv-backend", "c10d", "--rdzv-endpoint", compute.rdzv_endpoint]
        print(f"Waiting for {compute.nnodes} machines: on the others, with this folder shared, run\n"
              f"torchrun {' '.join(where)} --nproc-per-node {dist} -m pcam_model.training.distributed_job {path}")  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", str(dist)]
    return [*torchrun, "--shutdown-timeout", str(GRACE), "-m", "pcam_model.training.distributed_job", str(path)]


def _follow(command: list[str], stop: StopRequest, callbacks: Callbacks) -> int:
    """Start the group and tell what its first process tells; its exit code. A signal is handed to it once."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as group:
        try:
            for line in _lines(group, stop):
                if line.startswith(TOLD):
                    what, content = json.loads(line.removeprefix(TOLD))
                    callbacks.progress(*content) if what == "progress" else callbacks.epoch(content)
                else:
                    print(line)
            return group.wait()
        finally:
            if group.poll() is None:
                group.terminate()


def _lines(group: "subprocess.Popen[bytes]", stop: StopRequest) -> Iterator[str]:
    """What the group prints, while it lives; looks up often enough to hand on a signal at once."""
    assert group.stdout
    told, rest = False, b""
    with selectors.DefaultSelector() as ready:
        ready.register(group.stdout, selectors.EVENT_READ)
        while True:
            if stop.asked and not told:
                group.terminate()
                told = True
            if not ready.select(0.2):
                continue
            read = os.read(group.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + read).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            if not read:
                return


def _take_part(path: Path) -> None:
    """What each process of the group does."""
    gpu = torch.cuda.is_available()
    tune_malloc()
    dist.init_process_group("nccl" if gpu else "gloo")
    if gpu:
        torch.cuda.set_device(dist.get_node_local_rank())
    job = DistributedJob.model_validate_json(path.read_bytes())
    first = dist.get_rank() == 0
    if not first:
        sys.stdout = Path(os.devnull).open("w")  # what all would say is said once
    try:
        fit = job.fit(Callbacks(_tell_progress, _tell_epoch) if first else Callbacks())
        made = fit.run()
        if first:
            write_atomic(Path(job.folder) / MADE, made.model_dump_json().encode())
        dist.barrier()
    except PcamError as error:  # whoever finds it first says it: the others are ended then
        content = {"kind": type(error).__name__, "sentence": str(error)}
        write_atomic(Path(job.folder) / FAILED, json.dumps(content).encode())
        sys.exit(1)
    dist.destroy_process_group()


def _tell_progress(done: int, total: int) -> None:
    print(TOLD + json.dumps(["progress", [done, total]]), flush=True)


def _tell_epoch(row: dict[str, Any]) -> None:
    print(TOLD + json.dumps(["epoch", row]), flush=True)


if __name__ == "__main__":
    _take_part(Path(sys.argv[1]))
