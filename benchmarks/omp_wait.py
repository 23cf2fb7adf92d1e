"""Training with and without OMP_WAIT_POLICY=PASSIVE: one process alone, and several at once on the same cores.

    python -m benchmarks.omp_wait [--processes 2] [--seconds 10] [--rounds 5]

pcam sets it unless the variable is set; `default` is OpenMP without the variable, whose threads spin for a while.
Each process trains ResNet-18 on one resident batch with a thread a core. Both take turns within each round, and a
figure is the median of the rounds. About 8 minutes; a quiet machine is needed, so each round's load is written too.
"""

import argparse
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack

import torch  # before pcam_model, which sets the variable that OpenMP reads at this import

from benchmarks.fit import bare_rate, stage_of
from benchmarks.machine import write_result

POLICIES = ("default", "PASSIVE")
ARCH, SIZE, BATCH, WARM_UP_S = "resnet18", 96, 32, 1.0


def train(seconds: float) -> None:
    """In a process of its own: warm up, say so, wait for a line on standard input, and print the images/s."""
    bare_rate(ARCH, SIZE, stage_of("finetune", BATCH), WARM_UP_S, "fp32")
    print("ready", flush=True)
    sys.stdin.readline()
    print(bare_rate(ARCH, SIZE, stage_of("finetune", BATCH), seconds, "fp32"), flush=True)


def start(policy: str, seconds: float) -> subprocess.Popen[str]:
    """A training process under a policy, with a thread a core."""
    env = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    env |= {} if policy == "default" else {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-m", "benchmarks.omp_wait", "--train", str(seconds)]
    return subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def total_rate(policy: str, processes: int, seconds: float) -> float:
    """Images/s of so many processes together, which start training at the same moment."""
    with ExitStack() as stack:
        running = [stack.enter_context(start(policy, seconds)) for _ in range(processes)]
        pipes = [(process.stdin, process.stdout) for process in running]
        for _, output in pipes:
            if output is None or output.readline() != "ready\n":
                raise SystemExit("a training process has ended before it was ready; its error is above")
        for go, _ in pipes:
            if go is not None:
                go.write("\n")
                go.flush()
        return sum(float(output.readline()) for _, output in pipes if output is not None)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2, help="how many train at once, beside one alone")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.train is not None:
        return train(args.train)
    rates: dict[tuple[int, str], list[float]] = {}
    loads = []
    for _ in range(args.rounds):
        loads.append(round(os.getloadavg()[0], 2))
        for processes in (1, args.processes):
            for policy in POLICIES:
                rates.setdefault((processes, policy), []).append(total_rate(policy, processes, args.seconds))
    figures = {f"{processes} at once": compare(rates, processes) for processes in (1, args.processes)}
    about = {"network": f"{ARCH} at {SIZE}, batch {BATCH}, float32", "threads": torch.get_num_threads()}
    command = f"python -m benchmarks.omp_wait --processes {args.processes} --seconds {args.seconds:g}"
    write_result("omp_wait", f"{command} --rounds {args.rounds}", about | {"load before each round": loads} | figures)


def compare(rates: dict[tuple[int, str], list[float]], processes: int) -> dict[str, object]:
    """Median images/s of each policy, and the ratio of PASSIVE to the default: median, least and greatest of rounds."""
    figures: dict[str, object] = {
        f"{policy}, images/s": round(statistics.median(rates[processes, policy]), 1) for policy in POLICIES
    }
    pairs = zip(rates[processes, "PASSIVE"], rates[processes, "default"], strict=True)
    ratios = sorted(passive / default for passive, default in pairs)
    spread = (statistics.median(ratios), ratios[0], ratios[-1])
    return figures | {"PASSIVE over default": [round(ratio, 3) for ratio in spread]}


if __name__ == "__main__":
    main()
