"""A campaign that breaks `pcam train`, and looks whether it survives.

    python -m benchmarks.chaos [--faults 300] [--minutes 0] [--seed 1] [--only NAME ...] [--add | --no-result]

An unbroken run is the reference. Each fault begins a run in a fresh home, breaks it at a moment that the seed draws,
and starts it again until it is published; the weights have to be the reference's to the bit, `pcam verify` content, and
nothing left over. `told` is a fault that the product refused with a sentence, and survived once its file was restored.
All else is a failure, and the exit code 1. With --minutes no fault begins after so many. Writes
benchmarks/results/chaos.json; with --add what is in it stays, but for the same faults and seeds.
"""

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
from moto.server import ThreadedMotoServer

from benchmarks.chaos_faults import FAULTS, OWN_SERVER_FAULTS, STORE_FAULT, Broken
from benchmarks.chaos_proxy import fault_proxy
from benchmarks.chaos_runs import LIMIT_S, Ended, Home, S3Store, sentences
from benchmarks.machine import RESULTS, write_result
from pcam_model.training.model_io import code_digest
from tasks.server_process import running_server

STARTS = 3
SAME, TOLD, FAILURES = "same", "told", ("wrong", "lost", "hung", "leftover", "traceback")


class Outcome(NamedTuple):
    """What became of one fault."""

    fault: str
    seed: int
    what: str
    outcome: str
    seconds: float
    code: str
    """The digest of the code that survived it."""
    detail: str = ""


def survive(home: Home, broken: Broken, reference: str) -> tuple[str, str]:
    """Start the run until it is published; the outcome, and what explains a failure."""
    if broken.code is None:
        return "hung", home.output()[-2000:]
    if "Traceback" in home.output():
        return "traceback", home.output()[-3000:]
    if broken.codes is not None and broken.code not in broken.codes:
        return "lost", f"the broken command ended with {broken.code}: {home.output()[-2000:]}"
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


def _inspect(home: Home, reference: str, outcome: str) -> tuple[str, str]:
    """The outcome of a run that was published."""
    if home.weights() != reference:
        return "wrong", f"weights {home.weights()}"
    verified = home.run("verify")
    if verified.code:
        return "wrong", verified.output[-2000:]
    leftovers = home.leftovers()
    return ("leftover", ", ".join(leftovers)) if leftovers else (outcome, "")


def unbroken(folder: Path, api_url: str) -> tuple[str, float]:
    """The weights of the reference, and the seconds that it took."""
    home = Home(folder, api_url)
    ended = home.run()
    if ended.code:
        raise SystemExit(f"the unbroken run failed: {ended.output}")
    return home.weights(), ended.seconds


@contextmanager
def s3_store() -> Iterator[S3Store]:
    """A bucket on an S3 server of this process, behind a proxy."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        direct = f"http://127.0.0.1:{port}"
        boto3.client(
            "s3", endpoint_url=direct, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
        ).create_bucket(Bucket="chaos")
        with fault_proxy(port) as proxy:
            environment = keys | {"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{proxy.port}"}
            yield S3Store("s3://chaos", environment, proxy)
    finally:
        server.stop()


def campaign(folder: Path, api_url: str, server: S3Store, args: Any) -> list[Outcome]:
    """All faults, one after the other; each prints a line."""
    reference, seconds = unbroken(folder / "reference", api_url)
    print(f"unbroken: {seconds:.0f} s, weights {reference[:12]}", flush=True)
    names, deadline, outcomes = args.only or list(FAULTS), time.monotonic() + (args.minutes or 1e9) * 60, []
    random.Random(args.seed).shuffle(names)
    for number in range(args.faults):
        if time.monotonic() > deadline:
            break
        fault, seed, began = names[number % len(names)], args.seed + number, time.monotonic()
        home = Home(
            folder / str(number),
            "" if fault in OWN_SERVER_FAULTS else api_url,
            server._replace(uri=f"{server.uri}/{number}") if fault == STORE_FAULT else None,
        )
        broken = FAULTS[fault](home, random.Random(seed), seconds)
        outcome, detail = survive(home, broken, reference)
        took = round(time.monotonic() - began, 1)
        found = Outcome(fault, seed, broken.what, outcome, took, code_digest(), detail)
        outcomes.append(found)
        print(f"{number + 1}: {fault}, seed {seed}: {found.what}: {outcome}, {found.seconds} s {detail}", flush=True)
        shutil.rmtree(home.folder)
    return outcomes


def earlier_outcomes() -> list[Outcome]:
    """What the result file holds."""
    path = RESULTS / "chaos.json"
    return [Outcome(**one) for one in json.loads(path.read_text())["outcomes"]] if path.exists() else []


def markdown_table(table: dict[str, dict[str, int]]) -> str:
    """The rows of docs/reliability.md."""
    rows = ["| fault | tried | same weights | told | failures |", "|---|---|---|---|---|"]
    for name, counts in table.items():
        failures = sum(counts[kind] for kind in FAILURES)
        rows.append(f"| {name} | {sum(counts.values())} | {counts[SAME]} | {counts[TOLD]} | {failures} |")
    return "\n".join(rows)


def write_outcomes(outcomes: list[Outcome], earlier: list[Outcome]) -> None:
    """Write the result file: each outcome, and how often each fault ended how."""
    all_of_them = list({(one.fault, one.seed): one for one in [*earlier, *outcomes]}.values())
    counts = Counter((one.fault, one.outcome) for one in all_of_them)
    table = {name: {kind: counts[name, kind] for kind in (SAME, TOLD, *FAILURES)} for name in FAULTS}
    shown = {"faults": len(all_of_them), "limit_seconds": LIMIT_S, "table": table}
    print(markdown_table(table))
    outcomes_as_records = [one._asdict() for one in all_of_them]
    write_result("chaos", "python -m benchmarks.chaos", shown | {"outcomes": outcomes_as_records}, shown)


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
        s3_store() as server,
    ):
        outcomes = campaign(Path(folder), url, server, args)
    failed = [outcome for outcome in outcomes if outcome.outcome in FAILURES]
    print(f"{len(outcomes)} faults, {len(failed)} failures")
    if not args.no_result:
        write_outcomes(outcomes, earlier_outcomes() if args.add else [])
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
