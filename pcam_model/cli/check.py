"""The command `pcam check`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pcam_model.cli.options import ConfigOption, PresetOption, SetOption, StoreOption

COLOURS = {"fine": "green", "warning": "yellow", "failed": "red"}


def check(
    source: Annotated[str, typer.Option(help="sample, kaggle, or the path of a .zip or folder")] = "",
    preset: PresetOption = "",
    config: ConfigOption = None,
    sets: SetOption = None,
    store: StoreOption = "",
    pool: Annotated[str, typer.Option(help="a work pool; by default that of pcam/full-train")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Can this machine, with these credentials and this store, do the job? Exit code 1 where it could not."""
    from pcam_model.config_reader import resolve_config

    found = _findings(resolve_config(preset, config, sets or [], source, store), pool)
    if as_json:
        import json

        print(json.dumps(found, indent=1))
    else:
        _print(found)
    if any(finding["level"] == "failed" for finding in found):
        sys.exit(1)


def _findings(config: Any, pool: str) -> list[dict[str, Any]]:
    try:
        from tasks.checking import everything
    except ModuleNotFoundError as error:
        from pcam_model.check import machine

        print(f"Kaggle and Prefect were not looked at: {error.name} is not installed", file=sys.stderr)
        return [finding.model_dump() for finding in machine(config)]
    return everything(config, pool)


def _print(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(show_lines=True)
    for heading in ("", "", "found", "expected", "what to do"):
        table.add_column(heading, overflow="fold")
    for each in found:
        words = (Text(each[name]) for name in ("what", "found", "expected", "remedy"))
        table.add_row(Text(each["level"], COLOURS[each["level"]]), *words)
    Console().print(table)
