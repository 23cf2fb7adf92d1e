r"""Training of a stage by several processes: a job file, started with `torchrun`, followed, and its result.

On another machine that shares the folder, the same job is joined with

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:PORT \
        -m pcam_model.training.distributed_job JOB
"""

import json
import logging
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
from pcam_model.core.log import log
from pcam_model.core.schema import Record
from pcam_model.training.callbacks import Callbacks
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network, load_split_data
from pcam_model.training.device import tune_malloc
from pcam_model.training.distributed import dist_context
from pcam_model.training.interrupt import RESUME_HINT, StopRequest, graceful_stop
from pcam_model.training.stage import Stage
from pcam_model.training.trainer import Trainer

MODULE, LAUNCHER = "pcam_model.training.distributed_job", "pcam_model.training.torchrun"
JOB_FILE, RESULT_FILE, ERROR_FILE = ".job.json", ".result.json", ".error.json"
EVENT_PREFIX = "@pcam "  # begins a line of standard output that calls a callback: JSON [name, arguments]
SHUTDOWN_TIMEOUT_S = 20  # for the processes to save their state after a signal
POLL_S = 0.2


class DistributedJob(Record):
    """All that a process needs to take part in the training of a stage."""

    context: TrainingContext
    stage: Stage
    max_lr: float
    start: Checkpoint | None
    folder: str

    def trainer(self, callbacks: Callbacks) -> Trainer:
        """The trainer of this process, with its slice of every batch where it is one of several."""
        data = load_split_data(self.context)
        return Trainer(
            self.stage.prepare(load_network(self.context, self.start)),
            data.loaders["train"],
            data.loaders["valid"],
            self.stage,
            self.max_lr,
            self.context.seed,
            Path(self.folder),
            callbacks,
            self.context.compute,
            dist_context(),
        )


def run_distributed(job: DistributedJob, nproc_per_node: int, callbacks: Callbacks) -> Checkpoint:
    """Train in so many processes on this machine, and on others as configured; returns the final checkpoint.

    Raises:
        PcamError: raised by a process.
        Interrupted: SIGTERM or SIGINT asked to stop; the whole state is saved.
        TransientError: a process died; a retry resumes from the last checkpoint, with any number of processes.
    """
    folder = Path(job.folder)
    _remove(folder, RESULT_FILE, ERROR_FILE)
    path = write_atomic(folder / JOB_FILE, job.model_dump_json().encode())
    with graceful_stop() as stop:
        code = _follow(_command(job, nproc_per_node, path), stop, callbacks)
        if stop.signal and not (folder / RESULT_FILE).exists():
            raise Interrupted(f"{job.stage.name} training stopped by {stop.signal.name}; {RESUME_HINT}")
    if (folder / RESULT_FILE).exists():
        checkpoint = Checkpoint.model_validate_json((folder / RESULT_FILE).read_bytes())
        _remove(folder, JOB_FILE, RESULT_FILE)
        return checkpoint
    if (folder / ERROR_FILE).exists():
        error = json.loads((folder / ERROR_FILE).read_bytes())
        raise getattr(errors, error["kind"])(error["message"])
    raise TransientError(
        f"one of the {nproc_per_node} processes of the {job.stage.name} training died (torchrun ended with {code}); "
        "the last checkpoint is kept, and a retry resumes from it"
    )


def _remove(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _command(job: DistributedJob, nproc_per_node: int, path: Path) -> list[str]:
    compute = job.context.compute
    rendezvous = ["--standalone"]
    if compute.nnodes > 1:
        rendezvous = ["--nnodes", str(compute.nnodes), "--rdzv-backend", "c10d"]
        rendezvous += ["--rdzv-endpoint", compute.rdzv_endpoint]
        log.info("Waiting for %d machines; on the others, which share this folder, run", compute.nnodes)
        log.info("torchrun %s --nproc-per-node %d -m %s %s", " ".join(rendezvous), nproc_per_node, MODULE, path)
    torchrun = [sys.executable, "-m", LAUNCHER, *rendezvous, "--nproc-per-node", str(nproc_per_node)]
    return [*torchrun, "--shutdown-timeout", str(SHUTDOWN_TIMEOUT_S), "-m", MODULE, str(path)]


def _follow(command: list[str], stop: StopRequest, callbacks: Callbacks) -> int:
    """Run torchrun, log its output, call the callbacks for its events, and forward a signal once; its exit code."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as torchrun:
        try:
            for line in _output_lines(torchrun, stop):
                if line.startswith(EVENT_PREFIX):
                    name, arguments = json.loads(line.removeprefix(EVENT_PREFIX))
                    getattr(callbacks, name)(*arguments)
                else:
                    log.info("%s", line)
            return torchrun.wait()
        finally:
            if torchrun.poll() is None:
                torchrun.terminate()


def _output_lines(torchrun: "subprocess.Popen[bytes]", stop: StopRequest) -> Iterator[str]:
    """Lines of standard output until its end; a requested stop is forwarded at once, as SIGTERM."""
    assert torchrun.stdout
    is_terminated, rest = False, b""
    with selectors.DefaultSelector() as selector:
        selector.register(torchrun.stdout, selectors.EVENT_READ)
        while True:
            if stop.signal and not is_terminated:
                torchrun.terminate()
                is_terminated = True
            if not selector.select(POLL_S):
                continue
            chunk = os.read(torchrun.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in lines)
            if not chunk:
                return


def _run_rank(path: Path) -> None:
    """Take part in a job; what each process that torchrun starts does."""
    gpu = torch.cuda.is_available()
    tune_malloc()
    dist.init_process_group("nccl" if gpu else "gloo")
    if gpu:
        torch.cuda.set_device(dist.get_node_local_rank())
    job = DistributedJob.model_validate_json(path.read_bytes())
    is_main = dist.get_rank() == 0
    _set_up_output(is_main)
    try:
        checkpoint = job.trainer(_event_callbacks() if is_main else Callbacks()).run()
        if is_main:
            write_atomic(Path(job.folder) / RESULT_FILE, checkpoint.model_dump_json().encode())
        dist.barrier()
    except PcamError as error:  # the first process to raise reports it, since the others are ended then
        content = {"kind": type(error).__name__, "message": str(error)}
        write_atomic(Path(job.folder) / ERROR_FILE, json.dumps(content).encode())
        sys.exit(1)
    dist.destroy_process_group()


def _set_up_output(is_main: bool) -> None:
    """Send rank 0's log as plain lines to standard output, which `_follow` reads; silence the other ranks."""
    log.propagate = False
    if is_main:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
    else:
        log.addHandler(logging.NullHandler())


def _event_callbacks() -> Callbacks:
    """Callbacks that print events for `_follow`."""
    return Callbacks(
        on_progress=lambda done, total: _print_event("on_progress", done, total),
        on_epoch=lambda row: _print_event("on_epoch", row),
    )


def _print_event(name: str, *arguments: Any) -> None:
    print(EVENT_PREFIX + json.dumps([name, arguments]), flush=True)


if __name__ == "__main__":
    _run_rank(Path(sys.argv[1]))
