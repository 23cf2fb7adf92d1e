"""The command `pcam check`."""

import sys
from typing import Annotated, Any

import typer

from pcam_model.cli.options import ConfigOption, JsonOption, PresetOption, SetOption, SourceOption, StoreOption
from pcam_model.cli.output import print_json
from pcam_model.cli.pipeline import import_pipeline
from pcam_model.core.errors import MissingPackageError
from pcam_model.core.log import log

COLOURS = {"fine": "green", "warning": "yellow", "failed": "red"}


def check(
    source: SourceOption = "",
    preset: PresetOption = "",
    config: ConfigOption = None,
    settings: SetOption = None,
    store: StoreOption = "",
    pool: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="A work pool of Prefect. By default that of the deployment pcam/full-train.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Check whether this machine, its credentials and its store could do a training run.

    Looks at GPU, driver and CUDA, memory, disk, cache, store, weights, Kaggle, Prefect, pool and worker, in seconds.
    The exit code is 1 where a run would fail.
    """
    from pcam_model.config_reader import resolve_config

    findings = _findings(resolve_config(preset, config, settings or [], source, store), pool)
    if as_json:
        print_json(findings)
    else:
        _print_table(findings)
    if any(finding["level"] == "failed" for finding in findings):
        sys.exit(1)


def _findings(config: Any, pool: str) -> list[dict[str, Any]]:
    try:
        checking = import_pipeline("tasks.checking", "the check of Kaggle and Prefect")
    except MissingPackageError as error:
        from pcam_model.check import check_machine

        log.warning("Kaggle and Prefect are not checked: %s", error)
        return [finding.model_dump() for finding in check_machine(config)]
    findings: list[dict[str, Any]] = checking.check_everything(config, pool)
    return findings


def _print_table(findings: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    for heading in ("", "", "found", "expected", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        cells = (Text(finding[name]) for name in ("what", "found", "expected", "remedy"))
        table.add_row(Text(finding["level"], COLOURS[finding["level"]]), *cells)
    Console().print(table)
