"""The commands of `pcam` that judge what is published: score, compare, submit."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pcam_model.cli.options import StoreOption
from pcam_model.core.errors import PcamError
from pcam_model.core.paths import cache_dir, resolve_store_uri

AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (score, compare, submit):
        app.command()(command)


def score(
    model: Annotated[str, typer.Argument(help="a run's name, a channel, a folder, or a run's address")],
    source: Annotated[str, typer.Argument(help="a labelled .zip or folder, or sample")],
    store: StoreOption = "",
    tta: Annotated[
        bool | None, typer.Option("--tta/--no-tta", help="average over the 8 symmetries, or not [as the model does]")
    ] = None,
    point: Annotated[
        str, typer.Option("--operating-point", help="a probability, or a rule that was chosen with the model")
    ] = "",
    slides: Annotated[str, typer.Option(help="a CSV id,wsi: intervals are then over slides")] = "",
    out: Annotated[Path | None, typer.Option(help="a folder for the whole report")] = None,
    as_json: AsJson = False,
) -> None:
    """Figures of a model on a labelled source, with 95 % intervals."""
    from pcam_model.config_reader import parse_source, validate_config
    from pcam_model.data.pack import build_pack
    from pcam_model.data.source import SourceConfig, fetch
    from pcam_model.evaluation.external import in_short, score_external
    from pcam_model.evaluation.report import write_report
    from pcam_model.registry.resolve import find_model

    folder = find_model(model, resolve_store_uri(store), cache_dir())
    config: SourceConfig = validate_config({"source": parse_source(source) | {"slides": slides}}).source
    pack = build_pack(fetch(config, 0, cache_dir() / "downloads"), config, cache_dir() / "packs", 0)
    evidence = score_external(folder, pack, tta=tta, operating_point=point or None, explain=out is not None)
    found = in_short(evidence)
    if out:
        write_report(out, evidence)
    if as_json:
        return print_json(found)
    ends = found["intervals"]
    rows = {name: (value, *ends.get(name, (None, None))) for name, value in found["figures"].items()}
    print_figures(f"{found['model']} on {found['source']}, {found['patches']:,} patches", rows)
    for words in (found["meaning"], f"report: {out / 'report.html'}" if out else ""):
        Console(stderr=True).print(words, highlight=False, soft_wrap=True, end="\n" if words else "")


def compare(
    runs: Annotated[list[str], typer.Argument(help="two runs or more: names, channels, folders or addresses")],
    store: StoreOption = "",
    side: Annotated[str, typer.Option(help="test or valid [test, where every run has one]")] = "",
    as_json: AsJson = False,
) -> None:
    """Runs side by side on the same patches: figures, and whether the later ones differ from the first."""
    from pcam_model.evaluation import compare as comparing
    from pcam_model.registry.resolve import find_report

    folders = {run: find_report(run, resolve_store_uri(store), cache_dir()) for run in runs}
    found = comparing.compare_reports(folders, side)
    if as_json:
        return print_json(found.model_dump(mode="json"))
    table = Table("figure", *found.figures, title=f"{found.side} part, {found.patches:,} patches")
    for name in comparing.NAMES:
        table.add_row(name, *(_with_ends(figures.get(name)) for figures in found.figures.values()))
    console = Console()
    console.print(table)
    for difference in found.differences:
        console.print(comparing.sentence(difference), highlight=False, soft_wrap=True)


def submit(
    run: Annotated[str, typer.Argument(help="a run that was trained on the whole competition's archive")],
    message: Annotated[str, typer.Option(help="what Kaggle lists it as [pcam RUN]")] = "",
    timeout: Annotated[float, typer.Option(help="seconds to wait for the scores")] = 600.0,
    store: StoreOption = "",
    as_json: AsJson = False,
) -> None:
    """Send a run's submission.csv to Kaggle, and bring back its public and private score."""
    from pcam_model.registry.resolve import find_report

    file = find_report(run, resolve_store_uri(store), cache_dir()) / "submission.csv"
    try:
        from tasks.kaggle import submission as submissions
    except ModuleNotFoundError as error:
        raise PcamError(
            f"pcam submit needs {error.name}, which is not installed; pip install 'pcam[pipeline]'"
        ) from None
    found = submissions.submit(file, message or f"pcam {run}", timeout=timeout)
    if as_json:
        return print_json(found.model_dump(mode="json"))
    if not found.scored:
        print(f"{found.said}. It has no score after {timeout:.0f} s; {submissions.SUBMISSIONS} will have it")
        return
    private = f"{found.private}" if found.private is not None else "not told before the competition is over"
    print(f"{found.said}. AUC public {found.public if found.public is not None else 'not told'}, private {private}")


def _with_ends(figure: Any) -> str:
    if figure is None:
        return "-"
    return f"{figure.value:.4f}" + ("" if figure.low is None else f"  {figure.low:.3f} .. {figure.high:.3f}")


def print_figures(title: str, figures: dict[str, tuple[float, float | None, float | None]]) -> None:
    """A table of figures with the ends of their intervals, where there are any."""
    table = Table("figure", "value", "95 % interval", title=title)
    for name, (value, low, high) in figures.items():
        table.add_row(name, f"{value:.4f}", "" if low is None else f"{low:.4f} .. {high:.4f}")
    Console().print(table)


def print_json(content: Any) -> None:
    """Print what other programs read."""
    print(json.dumps(content, indent=1))
