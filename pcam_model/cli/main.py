"""The command line `pcam`: its commands, and the exit codes of all of them.

0: done. 1: a user's mistake, or a run that failed. 2: wrong usage. 3: `pcam drift` found drift. 75: interrupted; the
same command resumes.
"""

import importlib.metadata
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pcam_model.cli import check, config, drift, evaluate, export, predict, registry, runs, slide_score, slides, train
from pcam_model.cli.command import PcamCommand, PcamGroup, with_log_options
from pcam_model.cli.logs import command_logging
from pcam_model.cli.options import QuietOption, VerboseOption
from pcam_model.core.errors import Interrupted, require_package
from pcam_model.core.limits import user_message

TRAIN, USE, REGISTRY, CHECK = "Train", "Use a model", "Registry", "Check"
EXIT_CODES = (
    "Exit codes: 0 done; 1 a mistake or a failed run; 2 wrong usage; 3 drift found (pcam drift); 75 interrupted, the "
    "same command resumes."
)
# Each command with its panel and an example.
COMMANDS: list[tuple[Callable[..., Any], str, str]] = [
    (train.train, TRAIN, "pcam train --source patches.zip --preset quick --run first"),
    (config.config, TRAIN, "pcam config quick > my.yaml"),
    (predict.predict, USE, "pcam predict champion patches.zip --out predictions.csv"),
    (slides.slides, USE, "pcam slides champion slides/ --out heatmaps/"),
    (slide_score.slide_score, USE, "pcam slides score heatmaps/ labels.csv --annotations outlines/"),
    (drift.drift, USE, "pcam drift champion new.zip --out drift.html"),
    (export.export, USE, "pcam export champion pcam-champion/ --to wsinfer"),
    (registry.pull, USE, "pcam pull champion model/"),
    (evaluate.score, USE, "pcam score champion other.zip --out report/"),
    (evaluate.compare, USE, "pcam compare first second"),
    (evaluate.submit, USE, 'pcam submit first --message "first try"'),
    (runs.runs, REGISTRY, "pcam runs --store s3://bucket/pcam"),
    (runs.show, REGISTRY, "pcam show first"),
    (registry.publish, REGISTRY, "pcam publish first"),
    (registry.promote, REGISTRY, 'pcam promote first --message "better on new slides"'),
    (registry.rollback, REGISTRY, "pcam rollback"),
    (registry.channels, REGISTRY, "pcam channels"),
    (registry.verify, REGISTRY, "pcam verify"),
    (registry.prune, REGISTRY, "pcam prune --days 60"),
    (check.check, CHECK, "pcam check --preset recipe"),
]

# Commands whose name is not that of their function.
NAMES: dict[Callable[..., Any], str] = {slide_score.slide_score: "slides score"}

app = typer.Typer(
    cls=PcamGroup, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich", epilog=EXIT_CODES
)
for _function, _panel, _example in COMMANDS:
    app.command(NAMES.get(_function), cls=PcamCommand, rich_help_panel=_panel, epilog=f"Example: {_example}")(
        with_log_options(_function)
    )


def _print_version(value: bool) -> None:
    if value:
        print(f"pcam {importlib.metadata.version('pcam')}")
        raise typer.Exit


@app.callback()
def pcam(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a cancer detector on histopathology patches, publish it, and use it."""
    context.with_resource(command_logging(verbose, quiet))


def main() -> None:
    """The entry point: a user's mistake is one sentence on standard error."""
    try:
        with require_package(f"pcam {sys.argv[1] if len(sys.argv) > 1 else ''}".rstrip(), extra="pipeline"):
            app()
    except Interrupted as interrupted:
        print(f"pcam: {interrupted}", file=sys.stderr)
        sys.exit(Interrupted.CODE)
    except Exception as error:
        if (message := user_message(error)) is None:
            raise
        print(f"pcam: {message}", file=sys.stderr)
        sys.exit(1)
