"""The command `pcam`."""

import atexit
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pcam_model.cli.check import check
from pcam_model.cli.evaluate import AsJson, print_figures, print_json
from pcam_model.cli.evaluate import register as register_evaluation
from pcam_model.cli.options import ConfigOption, PresetOption, SetOption, StoreOption
from pcam_model.cli.predict import predict
from pcam_model.cli.registry import register as register_registry
from pcam_model.core.errors import Interrupted, PcamError
from pcam_model.core.paths import resolve_store_uri

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def _pcam() -> None:
    """From histopathology patches to a published, trusted cancer detector."""


@app.command()
def train(
    source: Annotated[str, typer.Option(help="sample, kaggle, or the path of a .zip or folder")] = "",
    preset: PresetOption = "",
    config: ConfigOption = None,
    sets: SetOption = None,
    store: StoreOption = "",
    run: Annotated[str, typer.Option(help="the run's name; the same name goes on with the same run")] = "",
) -> None:
    """Run the flow `pcam` in this process: data, split, LR search, training, scores, a published model."""
    from pcam_model.config_reader import resolve_config

    train_config = resolve_config(preset, config, sets or [], source, store, run)
    _quiet_prefect()
    _interruptible()
    try:
        from flows.full_train import full_train
    except ModuleNotFoundError as error:
        raise PcamError(
            f"pcam train needs {error.name}, which is not installed; pip install 'pcam[pipeline]'"
        ) from None
    try:
        published = full_train(train_config)
    except ValueError as error:
        if _stopped(error):  # between two tasks, where Prefect answers a signal with a mistake of its own
            raise Interrupted("interrupted by SIGTERM; the same command does what is missing") from None
        raise
    finally:
        atexit.register(_ending)  # of all that is done at the end, the first
    print(f"Published {published.uri}")


@app.command()
def runs(store: StoreOption = "", as_json: AsJson = False) -> None:
    """What is in the store."""
    from pcam_model.registry.backends.base import open_store
    from pcam_model.registry.runs import list_runs

    found = list(list_runs(open_store(resolve_store_uri(store))))
    if as_json:
        print_json([run.model_dump(mode="json") for run in found])
        return
    table = Table("run", "published", "finished steps")
    for run in found:
        table.add_row(run.name, run.published or "no", ", ".join(run.steps))
    Console().print(table if found else f"no runs in {resolve_store_uri(store)}")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="a run's name")], store: StoreOption = "", as_json: AsJson = False
) -> None:
    """One run: its steps, its checkpoints and its figures."""
    from pcam_model.registry.describe import describe_run

    about = describe_run(resolve_store_uri(store), run)
    if as_json:
        print_json(about)
        return
    console = Console()
    console.print(f"{about['uri']}\npublished: {about['published'] or 'no'}", highlight=False)
    if ending := about["ending"]:
        console.print(f"{ending['state']} {ending['when']}: {ending['message']}", highlight=False, markup=False)
    console.print(f"done: {', '.join(about['steps']) or 'nothing yet'}", highlight=False)
    for kept in about["checkpoints"]:
        auc = "" if kept["valid_auc"] is None else f", validation AUC {kept['valid_auc']:.4f}"
        marks = ", best" * kept["best"] + ", final" * kept["final"]
        console.print(f"checkpoint {kept['stage']}/{kept['epoch']}{auc}{marks}", highlight=False)
    for side, figures in about["figures"].items():
        print_figures(f"{side} part", {name: (one["value"], one["low"], one["high"]) for name, one in figures.items()})
    console.print(f"{about['split']}", highlight=False)


app.command()(check)
app.command()(predict)
register_registry(app)
register_evaluation(app)


def _quiet_prefect() -> None:
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def _interruptible() -> None:
    """SIGTERM and SIGINT end the command with a code of its own; training takes them over, to save itself first."""
    import signal

    from pcam_model.training.interrupt import requeue_dropped_signals

    requeue_dropped_signals()

    def stop(number: int, frame: object) -> None:
        raise Interrupted(f"interrupted by {signal.Signals(number).name}; the same command does what is missing")

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as in a script's background
            signal.signal(number, stop)


def _stopped(error: BaseException | None) -> bool:
    """Whether an error came up while Prefect dealt with a signal."""
    from prefect.exceptions import TerminationSignal

    return error is not None and (isinstance(error, TerminationSignal) or _stopped(error.__context__))


def _ending() -> None:
    """What is left takes seconds and is not to be broken off: Prefect's temporary server is stopped."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def main() -> None:
    """The entry point: a user's mistake is one sentence on standard error and exit code 1; interrupted, it is 75."""
    try:
        app()
    except Interrupted as stop:
        print(f"pcam: {stop}", file=sys.stderr)
        sys.exit(Interrupted.CODE)
    except PcamError as error:
        print(f"pcam: {error}", file=sys.stderr)
        sys.exit(1)
    except ModuleNotFoundError as error:  # who only pulls and predicts may have installed less
        if (error.name or "").partition(".")[0] in ("", "pcam_model", "flows", "tasks"):
            raise
        print(f"pcam: this needs {error.name}, which is not installed; pip install 'pcam[pipeline]'", file=sys.stderr)
        sys.exit(1)
