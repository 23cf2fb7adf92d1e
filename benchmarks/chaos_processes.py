"""Faults of processes: signals, two at once, little memory, ranks, servers, workers and clocks."""

import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial

import psutil

from benchmarks.chaos_fault import Broken, Fault, SkippedFault, killed, signalled
from benchmarks.chaos_runs import TRAIN_JOB, Home, Job

SERVER_START_S = 8.0
ADDRESS_SPACE = (2e9, 12e9)
"""Bytes between which a memory limit is drawn."""
INTERRUPTED = (75, 0, -signal.SIGTERM, -signal.SIGINT)
RANK, TORCHRUN = "pcam_model.training.distributed_job", "pcam_model.training.torchrun"
RANKS_JOB = Job(words=(*TRAIN_JOB.words, "--set", "compute.nproc_per_node=2"))


def two_at_once(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Start the run twice: one is told who has it, or finds it finished."""
    first = home.start()
    delay = draw.uniform(0, seconds)
    time.sleep(delay)
    second = home.start()
    codes = sorted([home.wait(first).code or 0, home.wait(second).code or 0])
    told = "is being worked on by process" in home.output() or codes == [0, 0]
    return Broken(f"started twice, {delay:.1f} s apart", codes=(0,), code=0 if told and codes[0] == 0 else 1)


def pruned_meanwhile(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Prune all unpublished runs, however young, while the run is under way."""
    process, moment = home.start(), draw.uniform(0.2, seconds)
    time.sleep(moment)
    home.run("prune", "--days", "0", "--delete")
    return Broken(f"pruned after {moment:.1f} s", code=home.wait(process).code, codes=(0, 1))


def little_memory(home: Home, draw: random.Random, _: float) -> Broken:
    """No more address space than a limit, as by `ulimit -v`: from what Python needs to what the run does."""
    limit = int(draw.uniform(*ADDRESS_SPACE))
    before = f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({limit}, resource.RLIM_INFINITY)); "
    return Broken(f"address space of {limit / 1e9:.1f} GB", code=home.wait(home.start(before=before)).code)


def server_killed(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the Prefect server that the command has started."""
    process, moment = home.start(), draw.uniform(SERVER_START_S, seconds + SERVER_START_S)
    time.sleep(moment)
    servers = list(children(process.pid, "uvicorn"))
    for server in servers:
        server.kill()
    ended = home.wait(process)
    there = ", the server was there" * bool(servers)
    return Broken(f"server killed after {moment:.1f} s{there}", codes=(0, 1), code=ended.code)


def killed_with_server(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill a command that has a server of its own."""
    return signalled(home, draw, seconds + SERVER_START_S, (signal.SIGKILL,), (-9, 0))


def rank_killed(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill one of the two processes that share a training."""
    process, moment, ranks = home.start(), draw.uniform(0, seconds / 2), list[psutil.Process]()
    while process.poll() is None and len(ranks) < 2:
        time.sleep(0.2)
        ranks = sorted(children(process.pid, RANK), key=lambda rank: rank.pid)
    end = time.monotonic() + moment
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    ranks = sorted(children(process.pid, RANK), key=lambda rank: rank.pid) or ranks
    victim = draw.choice(ranks) if ranks else None
    alive = victim is not None and victim.is_running()
    if victim and alive:
        victim.kill()
    ended = home.wait(process)
    what = f"a rank killed {moment:.1f} s after both began" if alive else "no rank was there"
    return Broken(f"{what}: exit code {ended.code}", codes=(0, 1), code=ended.code)


def children(pid: int, word: str) -> Iterator[psutil.Process]:
    """The processes below one that have a word in their command line, but for torchrun."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                line = child.cmdline()
                if any(word in each for each in line) and TORCHRUN not in line:
                    yield child


def clock_jumps(home: Home, draw: random.Random, seconds: float) -> Broken:
    """Kill the run; the clock of its next start is an hour ahead or behind, and those of files and servers are not."""
    if not shutil.which("faketime"):
        raise SkippedFault("faketime is not installed (Debian's package faketime)")
    before, jump = killed(home, draw, seconds), draw.choice(("+3600", "-3600"))
    home.clear_output()
    ended = home.wait(home.start(prefix=("faketime", "-m", "-f", jump), variables={"NO_FAKE_STAT": "1"}))
    return Broken(f"{before.what}, then a clock of {jump} s: exit code {ended.code}", codes=(0,), code=ended.code)


PROCESS_FAULTS: dict[str, Fault] = {
    "SIGKILL": Fault(partial(signalled, numbers=(signal.SIGKILL,), codes=(-9, 0))),
    "SIGTERM": Fault(partial(signalled, numbers=(signal.SIGTERM,), codes=INTERRUPTED)),
    "SIGINT twice": Fault(partial(signalled, numbers=(signal.SIGINT, signal.SIGINT), codes=(*INTERRUPTED, 130))),
    "SIGSTOP, SIGCONT": Fault(partial(signalled, numbers=(signal.SIGSTOP, signal.SIGCONT), codes=(0,))),
    "started twice": Fault(two_at_once),
    "pruned meanwhile": Fault(pruned_meanwhile, cause=r"pruned"),
    "memory limit": Fault(little_memory, cause=r"memory|threads"),
    "Prefect server killed": Fault(server_killed, cause=r"Prefect|server", own_server=True),
    "killed with its own server": Fault(killed_with_server, own_server=True),
    "one of two ranks killed": Fault(rank_killed, job="two ranks", cause=r"processes"),
    "clock jumps an hour": Fault(clock_jumps),
}
