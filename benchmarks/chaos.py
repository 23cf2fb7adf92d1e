"""A campaign that breaks `pcam train`, and looks whether it survives.

    python -m benchmarks.chaos [--faults 300] [--minutes 0] [--seed 1] [--only NAME ...] [--add | --no-result]

An unbroken run is the reference, one for each kind of job. Each fault begins a job in a fresh home, breaks it at a
moment that the seed draws, and starts it again until it is published. Weights or scores have to be the reference's to
the bit, `pcam verify` content, the sentence of a refusal has to name its cause, and nothing may be left over. `told` is
a fault that the product refused with a sentence, and survived once its file was restored. All else is a failure, and
the exit code 1. With --minutes no fault begins after so many. Writes benchmarks/results/chaos.json; with --add what is
in it stays, but for the same faults and seeds.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.chaos_fault import Broken, Fault, SkippedFault
from benchmarks.chaos_faults import FAULTS
from benchmarks.chaos_references import References, Unbroken
from benchmarks.chaos_results import FAILURES, SAME, TOLD, Outcome, earlier_outcomes, write_outcomes
from benchmarks.chaos_runs import LIMIT_S, SLOWNESS, Ended, Home, Servers, sentences
from benchmarks.chaos_store import s3_store
from benchmarks.chaos_web import WebSource
from pcam_model.training.model_io import code_digest
from tasks.server_process import running_server

STARTS = 3


def survive(home: Home, broken: Broken, cause: str, reference: str) -> tuple[str, str]:
    """Start the job until it is published; the outcome, and what explains a failure."""
    if failure := _broken_badly(home.output(), broken, cause):
        return failure
    outcome, ended = SAME, Ended(None, "", 0)
    for _ in range(STARTS):
        home.clear_output()
        ended = home.run()
        if ended.code is None:
            return "hung", ended.output[-2000:]
        if "Traceback" in ended.output:
            return "traceback", ended.output[-3000:]
        if ended.code == 0:
            break
        if broken.restore and sentences(ended.output):
            outcome = TOLD
            broken.restore()
            broken = broken._replace(restore=None)
    if ended.code != 0 or not home.is_published():
        return "lost", f"exit code {ended.code}: {ended.output[-2000:]}"
    return _inspect(home, reference, outcome)


def _broken_badly(output: str, broken: Broken, cause: str) -> tuple[str, str] | None:
    """The outcome where the broken command has not ended as one may; None where it has."""
    if broken.code is None:
        return "hung", output[-2000:]
    if "Traceback" in output:
        return "traceback", output[-3000:]
    if broken.codes is not None and broken.code not in broken.codes:
        return "lost", f"the broken command ended with {broken.code}: {output[-2000:]}"
    if broken.code == 1 and not re.search(cause, "\n".join(sentences(output))):
        return "unclear", f"no sentence with {cause}: {output[-2000:]}"
    return None


def _inspect(home: Home, reference: str, outcome: str) -> tuple[str, str]:
    """The outcome of a run that was published."""
    if home.result() != reference:
        return "wrong", f"result {home.result()}"
    verified = home.run("verify")
    if verified.code:
        return "wrong", verified.output[-2000:]
    leftovers = home.leftovers()
    return ("leftover", ", ".join(leftovers)) if leftovers else (outcome, "")


def campaign(folder: Path, servers: Servers, args: Any) -> list[Outcome]:
    """All faults, one after the other; each prints a line."""
    references = References(folder / "references", servers)
    names, deadline, outcomes = args.only or list(FAULTS), time.monotonic() + (args.minutes or 1e9) * 60, []
    random.Random(args.seed).shuffle(names)
    for number in range(args.faults):
        if time.monotonic() > deadline:
            break
        name, seed = names[number % len(names)], args.seed + number
        fault = FAULTS[name]
        home = Home(folder / str(number), _servers_of(fault, servers, number), references.of(fault.job).job)
        try:
            outcomes.append(inflict(name, seed, home, references.of(fault.job)))
        except SkippedFault as lack:
            print(f"{number + 1}: {name}, seed {seed}: SKIPPED, {lack}", flush=True)
        else:
            print(f"{number + 1}: {outcomes[-1].line()}", flush=True)
        finally:
            home.closing.close()
            shutil.rmtree(home.folder)
    return outcomes


def _servers_of(fault: Fault, servers: Servers, number: int) -> Servers:
    """What a fault's home uses."""
    bucket = servers.bucket._replace(uri=f"{servers.bucket.uri}/{number}") if servers.bucket and fault.bucket else None
    return servers._replace(api_url="" if fault.own_server else servers.api_url, bucket=bucket)


def inflict(name: str, seed: int, home: Home, unbroken: Unbroken) -> Outcome:
    """Inflict a fault, and see what becomes of it."""
    began, home.limit_s = time.monotonic(), max(LIMIT_S, SLOWNESS * unbroken.seconds)
    broken = FAULTS[name].inject(home, random.Random(seed), unbroken.seconds)
    outcome, detail = survive(home, broken, FAULTS[name].cause, unbroken.result)
    took = round(time.monotonic() - began, 1)
    return Outcome(name, seed, broken.what, outcome, took, code_digest(), detail)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=FAULTS)
    parser.add_argument("--add", action="store_true")
    parser.add_argument("--no-result", action="store_true")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pcam-chaos-") as folder,
        running_server(Path(folder, "server"), Path(folder, "server.log"), ephemeral=True) as url,
        s3_store() as bucket,
        closing(WebSource()) as web,
    ):
        outcomes = campaign(Path(folder), Servers(url, bucket, web), args)
    failed = [outcome for outcome in outcomes if outcome.outcome in FAILURES]
    print(f"{len(outcomes)} faults, {len(failed)} failures")
    if not args.no_result:
        write_outcomes(outcomes, earlier_outcomes() if args.add else [])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
