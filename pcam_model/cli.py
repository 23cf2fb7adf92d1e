"""The command `pcam`."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pcam_model.cli_registry import StoreOption, register
from pcam_model.errors import PcamError
from pcam_model.places import cache_folder, store_address

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


@app.callback()
def _pcam() -> None:
    """From histopathology patches to a published, trusted cancer detector."""


@app.command()
def train(
    source: Annotated[str, typer.Option(help="sample, kaggle, or the path of a .zip or folder")] = "",
    config: Annotated[Path | None, typer.Option(help="a plan in YAML, as in deployments/plans")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", help="a key of the plan, as in tuned.epochs=3")] = None,
    store: StoreOption = "",
    run: Annotated[str, typer.Option(help="the run's name; the same name goes on with the same run")] = "",
) -> None:
    """Run the flow `pcam` in this process: data, split, LR search, training, scores, a published model."""
    from pcam_model.plan import read_plan, source_keys

    keys: dict[str, Any] = {"source": source_keys(source)} if source else {}
    keys |= {"store": {"uri": store}} if store else {}
    keys |= {"run": run} if run else {}
    plan = read_plan(config, sets or [], **keys)
    _quiet_prefect()
    try:
        from flows.full_train import full_train
    except ModuleNotFoundError as error:
        raise PcamError(
            f"pcam train needs {error.name}, which is not installed; pip install 'pcam[pipeline]'"
        ) from None
    published = full_train(**{name: getattr(plan, name) for name in type(plan).model_fields})
    print(f"Published {published.uri}")


@app.command()
def runs(store: StoreOption = "", as_json: AsJson = False) -> None:
    """What is in the store."""
    from pcam_model.registry.runs import list_runs
    from pcam_model.registry.store import open_store

    found = list(list_runs(open_store(store_address(store))))
    if as_json:
        _print_json([run.model_dump(mode="json") for run in found])
        return
    table = Table("run", "published", "finished steps")
    for run in found:
        table.add_row(run.name, run.published or "no", ", ".join(run.steps))
    Console().print(table if found else f"no runs in {store_address(store)}")


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="a run's name")], store: StoreOption = "", as_json: AsJson = False
) -> None:
    """One run: its plan, its steps and its figures."""
    from pcam_model.registry.show import describe_run

    about = describe_run(store_address(store), run)
    if as_json:
        _print_json(about)
        return
    console = Console()
    console.print(f"{about['uri']}\npublished: {about['published'] or 'no'}", highlight=False)
    console.print(f"done: {', '.join(about['steps']) or 'nothing yet'}", highlight=False)
    for side, figures in about["figures"].items():
        _print_figures(f"{side} part", {name: figure["value"] for name, figure in figures.items()})
    console.print(f"{about['split']}", highlight=False)


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="a run's name, a folder, or a run's address")],
    source: Annotated[str, typer.Argument(help="a labelled .zip or folder, or sample")],
    store: StoreOption = "",
    as_json: AsJson = False,
) -> None:
    """Figures of a model on a labelled source."""
    from pcam_model.data.pack import build_pack
    from pcam_model.data.source import SourcePlan, fetch
    from pcam_model.evaluation.elsewhere import score_elsewhere
    from pcam_model.plan import checked, source_keys
    from pcam_model.registry.find import find_model

    folder = find_model(model, store_address(store), cache_folder())
    plan: SourcePlan = checked({"source": source_keys(source)}).source
    pack = build_pack(fetch(plan, 0, cache_folder() / "downloads"), plan, cache_folder() / "packs", 0)
    figures = score_elsewhere(folder, pack)
    if as_json:
        _print_json(figures)
        return
    _print_figures(f"{figures['model']} on {figures['source']}, {figures['patches']:,} patches", figures["figures"])
    if figures["warning"]:
        Console(stderr=True).print(f"Note: {figures['warning']}", highlight=False)


register(app)


def _print_figures(title: str, figures: dict[str, float]) -> None:
    table = Table("figure", "value", title=title)
    for name, value in figures.items():
        table.add_row(name, f"{value:.4f}" if isinstance(value, float) else str(value))
    Console().print(table)


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=1))


def _quiet_prefect() -> None:
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")


def main() -> None:
    """The entry point: a user's mistake is one sentence on standard error and exit code 1."""
    try:
        app()
    except PcamError as error:
        print(f"pcam: {error}", file=sys.stderr)
        sys.exit(1)
