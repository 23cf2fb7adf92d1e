"""The command `pcam train`."""

from typing import Annotated, Any

import typer

from pcam_model.cli.interrupts import interruptible
from pcam_model.cli.logs import hide_prefect_lines, is_verbose, show_retries
from pcam_model.cli.options import (
    ConfigOption,
    JsonOption,
    PresetOption,
    SetOption,
    SourceOption,
    StoreOption,
)
from pcam_model.cli.output import local_path, print_json, print_metrics
from pcam_model.cli.pipeline import import_pipeline
from pcam_model.core.errors import Interrupted


def train(
    source: SourceOption = "",
    preset: PresetOption = "",
    config: ConfigOption = None,
    settings: SetOption = None,
    store: StoreOption = "",
    run: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The run's name. A run of this name is resumed. By default a name is generated.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Train a classifier and publish it: check, data, split, LR finder, two training stages, report.

    Without any option it trains the preset sample: generated patches and a small network, minutes on two CPU cores.
    Stopped by SIGTERM or SIGINT it saves what it has and exits with 75; the same command with --run resumes.
    """
    from pcam_model.config_reader import resolve_config

    if not (source or preset or config or settings):
        preset = "sample"
    train_config = resolve_config(preset, config, settings or [], source, store, run)
    published = _run_flow(train_config) if train_config.run else _run_named(train_config)
    store_uri, _, name = published.uri.rpartition("/runs/")
    print_outcome(store_uri, name, as_json)


def _run_named(config: Any) -> Any:
    """Run the flow under a new name, which the message of an interruption gives, since the same command has another."""
    from pcam_model.registry.run_names import new_run_name

    name = new_run_name()
    try:
        return _run_flow(config.model_copy(update={"run": name}))
    except Interrupted as interrupted:
        raise Interrupted(f"{str(interrupted).partition(';')[0]}; the same command with --run {name} resumes") from None


def _run_flow(config: Any) -> Any:
    """Run the flow in this process, with a temporary Prefect server where the user's settings name none."""
    hide_prefect_lines()
    with interruptible():
        full_train = import_pipeline("flows.full_train", "pcam train").full_train
        usable_server = import_pipeline("tasks.api_server", "pcam train").usable_server
        if not is_verbose():
            show_retries()
        with usable_server():
            return full_train(config)


def print_outcome(store: str, run: str, as_json: bool = False) -> None:
    """Print the metrics of a published run with their intervals, and where its report and its model are."""
    from pcam_model.registry.describe import describe_run

    described = describe_run(store, run)
    uri, figures = described["uri"], described["figures"]
    addresses = {"report": f"{uri}/report/report.html", "model": f"{uri}/model"}
    if as_json:
        return print_json({"run": run, "uri": uri, **addresses, "figures": figures})
    print_metrics(figures)
    for name, address in addresses.items():
        print(f"{name.capitalize() + ':':<8}{local_path(address)}")
    print(f"Published {uri}")
