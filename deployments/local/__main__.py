"""`make train`, `make up` and `make down`; exit code 0 is done, 1 mistaken or failed, 2 wrong usage, 75 interrupted."""

import argparse
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

from deployments.local import stack
from pcam_model.core.errors import ConfigError, Interrupted, PcamError
from pcam_model.core.limits import user_message

UP = "Prefect runs until `make down` (its page is at this address without /api):\nexport PREFECT_API_URL={}"


def resolve_parameters() -> dict[str, Any]:
    """The flow's parameters from the Makefile's variables: a preset or a YAML file, and the keys set beside it."""
    from pcam_model.config_reader import absolute_paths, resolve_config  # imports torchvision, which takes seconds
    from pcam_model.registry.run_names import new_run_name

    names = ("PRESET", "CONFIG", "SET", "SOURCE", "STORE", "RUN")
    preset, file, settings, source, store, run = (os.environ.get(f"PCAM_MAKE_{name}", "") for name in names)
    try:
        words = shlex.split(settings)
    except ValueError as error:
        raise ConfigError(f"SET={settings}: {error}; write for example SET='finetune.epochs=3 seed=4'") from None
    preset = preset or ("" if file else "sample")
    config = absolute_paths(resolve_config(preset, Path(file) if file else None, words, source, store, run))
    return {"config": config.model_copy(update={"run": config.run or new_run_name()}).model_dump(mode="json")}


def train(folder: Path, parameters: dict[str, Any]) -> None:
    """Run the deployment and print its results; PcamError where it fails, Interrupted where it is cancelled."""
    from deployments.watched_run import run_watched  # `down` need not wait for Prefect's import
    from pcam_model.cli.train import print_outcome

    name, store = parameters["config"]["run"], parameters["config"]["store"]["uri"]
    again = f"`make train RUN={name}` goes on with it"
    deployment = f"pcam/{stack.DEPLOYMENT[folder == stack.OWN]}"
    state = run_watched(deployment, parameters, name, lambda: stack.server_url(folder) != "")
    if not state.is_final() or state.is_cancelled():
        raise Interrupted(f"run {name} is {str(state.name).lower()}; {again}")
    if not state.is_completed():
        raise PcamError(f"run {name} ended as {state.name}, expected Completed; mend what its log says, then {again}")
    print_outcome(store, name)


def main() -> int:
    """Train, start or stop the stack; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.local", description=__doc__)
    parser.add_argument("command", choices=("train", "up", "down"))
    command = parser.parse_args().command
    for number in stack.SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, signal.default_int_handler)
    try:
        if command == "down":
            print(stack.stop_all())
            return 0
        parameters = resolve_parameters() if command == "train" else {}
        with stack.lease(keep=command == "up") as folder:
            train(folder, parameters) if parameters else print(UP.format(stack.server_url(folder)))
    except Exception as error:
        if (message := user_message(error)) is None:
            raise
        print(f"{message} (exit code 1)", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"{str(error) or 'interrupted; the same command starts again'} (exit code 75)", file=sys.stderr)
        return Interrupted.CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
