"""`make train`, `make up` and `make down`; exit code 0 is done, 1 mistaken or failed, 2 wrong usage, 75 interrupted."""

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import Any

from deployments.local import stack
from pcam_model.core.errors import ConfigError, Interrupted, PcamError, SourceError

UP = "Prefect runs until `make down` (its page is at this address without /api):\nexport PREFECT_API_URL={}"


def resolve_parameters() -> dict[str, Any]:
    """The flow's parameters from the Makefile's variables: a preset or a YAML file, and the keys set beside it."""
    from pcam_model.config_reader import resolve_config  # imports torchvision, which takes seconds
    from pcam_model.core.paths import resolve_store_uri

    names = ("PRESET", "CONFIG", "SET", "SOURCE", "STORE", "RUN")
    preset, file, settings, source, store, run = (os.environ.get(f"PCAM_MAKE_{name}", "") for name in names)
    try:
        words = shlex.split(settings)
    except ValueError as error:
        raise ConfigError(f"SET={settings}: {error}; write for example SET='finetune.epochs=3 seed=4'") from None
    preset = preset or ("" if file else "sample")
    resolved = resolve_config(preset, Path(file) if file else None, words, source, store, run)
    config = resolved.model_dump(mode="json")
    for section, key in (("source", "path"), ("source", "slides"), ("model", "weights")):
        path = config[section][key]
        if path not in ("", "imagenet", "none") and "://" not in path:
            if not Path(path).expanduser().exists():
                raise SourceError(
                    f"{path} is not there, expected a file or a folder; mend {section}.{key} and run again"
                )
            config[section][key] = str(Path(path).expanduser().resolve())
    config["store"]["uri"] = resolve_store_uri(config["store"]["uri"])
    config["run"] = config["run"] or f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return {"config": config}


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
            from deployments.local import server  # only now: Prefect reads the environment once

            server.run_to_the_end(folder, parameters) if parameters else print(UP.format(os.environ["PREFECT_API_URL"]))
    except PcamError as error:
        print(f"{error} (exit code 1)", file=sys.stderr)
        return 1
    except (Interrupted, KeyboardInterrupt) as error:
        print(f"{str(error) or 'interrupted; the same command starts again'} (exit code 75)", file=sys.stderr)
        return Interrupted.CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
