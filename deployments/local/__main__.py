"""`python -m deployments.local train|up|down`: what the Makefile calls."""

import argparse
import os
import secrets
import signal
import subprocess
import sys
import time
from datetime import datetime
from typing import Any, NoReturn

from deployments.local import asked, places, stack
from pcam_model.core.errors import PcamError

FILE = "deployments/local/prefect.yaml"
PLAN = "deployments/plans/sample.yaml"


def main(arguments: list[str] | None = None) -> int:
    """Do what was asked; the exit code."""
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if end != signal.SIGHUP or signal.getsignal(end) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(end, _interrupt)
    options = _parser().parse_args(arguments)
    try:
        return int(options.do(options))
    except PcamError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def train(options: argparse.Namespace) -> int:
    """Run the deployment from its start to its end, on a local stack."""
    parameters = asked.parameters(options.plan or PLAN, options.source, options.run, options.set, options.store)
    parameters["run"] = parameters["run"] or f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    with stack.leased() as running:
        _enter(running)
        return _follow(deploy(running), parameters)


def up(options: argparse.Namespace) -> int:
    """Start the stack, deploy, and leave it running."""
    with stack.leased(keep=True) as running:
        _enter(running)
        deploy(running)
        print(f"Prefect answers at {running.url.removesuffix('/api')}; it runs until `make down`.")
        print(f"export PREFECT_API_URL={running.url}")
    return 0


def down(options: argparse.Namespace) -> int:
    """Stop the stack that `up` left running."""
    print(stack.down())
    return 0


def deploy(running: stack.Stack) -> str:
    """Write the deployments to the server; the first one's name. On somebody's own server it has a name of its own."""
    name, *others = ("full-train", "retrain") if running.own_server else ("full-train-local",)
    names = [word for each in (name, *others) for word in ("--name", each)]
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", *names, "--prefect-file", FILE]
    done = subprocess.run(command, cwd=places.REPO, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise stack.StackError(f"prefect deploy failed:\n{done.stdout}{done.stderr}".rstrip())
    return f"pcam/{name}"


def _follow(deployment: str, parameters: dict[str, Any]) -> int:
    from prefect.client.orchestration import get_client  # after the environment says where the server is

    from deployments.local import follow, outcome

    started = time.monotonic()
    with get_client(sync_client=True) as client:
        run = follow.create(client, deployment, parameters, places.work_environment())
        print(f"Run {parameters['run']}: {os.environ['PREFECT_API_URL'].removesuffix('/api')}/runs/flow-run/{run.id}")
        state = follow.to_the_end(client, run.id, outcome.show_line)
    if not state.is_completed():
        print(f"Run {parameters['run']} ended as {state.name}, not as Completed.", file=sys.stderr)
        return 1
    outcome.show(parameters["store"]["uri"], parameters["run"], time.monotonic() - started)
    return 0


def _enter(running: stack.Stack) -> None:
    os.environ.update(new := places.environment(running.url, running.own_server))
    for name in set(os.environ) - set(new):
        del os.environ[name]


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for do in (train, up, down):
        command = commands.add_parser(do.__name__, help=do.__doc__)
        command.set_defaults(do=do)
        if do is train:
            for name in ("plan", "source", "run", "set", "store"):
                command.add_argument(f"--{name}", default=os.environ.get(f"PCAM_ASKED_{name.upper()}", ""))
    return parser


if __name__ == "__main__":
    sys.exit(main())
