"""The commands that evaluate published models: score, compare, submit."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pcam_model.cli.options import JsonOption, StoreOption, TtaOption
from pcam_model.cli.output import print_json, print_metrics
from pcam_model.cli.pipeline import import_pipeline
from pcam_model.cli.predict import ModelArgument
from pcam_model.core.log import log
from pcam_model.core.optional_cache import call_with_cache
from pcam_model.core.paths import resolve_store_uri


def score(
    model: ModelArgument,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A labelled .zip or folder, or sample.")],
    store: StoreOption = "",
    tta: TtaOption = None,
    operating_point: Annotated[
        str,
        typer.Option(
            metavar="POINT",
            help="A probability, or a rule that was chosen with the model, as youden.",
            show_default=False,
        ),
    ] = "",
    slides: Annotated[
        str,
        typer.Option(
            metavar="CSV", help="A CSV with the columns id,wsi. Intervals are then over slides.", show_default=False
        ),
    ] = "",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder for the full report.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on other labelled patches, with 95 % intervals."""
    from pcam_model.config_reader import parse_source, validate_config
    from pcam_model.core.write_guard import require_writable
    from pcam_model.data.pack import build_pack
    from pcam_model.data.source import fetch
    from pcam_model.evaluation.external import score_external, score_summary
    from pcam_model.evaluation.report import write_report
    from pcam_model.registry.bucket_source import fetch_bucket
    from pcam_model.registry.resolve import find_model

    if out:
        require_writable(out.absolute(), "--out")
    folder = call_with_cache(lambda cache: find_model(model, resolve_store_uri(store), cache))
    config = validate_config({"source": parse_source(source) | {"slides": slides}}).source
    pack = call_with_cache(
        lambda cache: build_pack(fetch(config, 0, cache / "downloads", fetch_bucket), config, cache / "packs", 0)
    )
    evidence = score_external(folder, pack, tta=tta, operating_point=operating_point or None, explain=out is not None)
    summary = score_summary(evidence)
    if out:
        write_report(out, evidence)
    if as_json:
        return print_json(summary)
    print_metrics(
        {f"{summary['model']} on {summary['source']}, {summary['patches']:,} patches": _with_intervals(summary)}
    )
    log.info(summary["meaning"])
    if out:
        log.info("Report: %s", out / "report.html")


def _with_intervals(summary: dict[str, Any]) -> dict[str, dict[str, Any]]:
    intervals = {name: summary["intervals"].get(name, (None, None)) for name in summary["figures"]}
    return {
        name: {"value": value, "low": intervals[name][0], "high": intervals[name][1]}
        for name, value in summary["figures"].items()
    }


def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN", help="Two runs or more: names, channels, folders or addresses.")
    ],
    store: StoreOption = "",
    split: Annotated[
        str,
        typer.Option(
            "--split",
            metavar="SPLIT",
            help="test or valid. By default test, where every run has one.",
            show_default=False,
        ),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Compare runs on the same patches: metrics of each, and the difference of each later one from the first."""
    from rich.console import Console

    from pcam_model.evaluation import compare as comparing
    from pcam_model.registry.resolve import find_report

    uri = resolve_store_uri(store)
    folders = call_with_cache(lambda cache: {run: find_report(run, uri, cache) for run in runs})
    comparison = comparing.compare_reports(folders, split)
    if as_json:
        return print_json(comparison.model_dump(mode="json"))
    figures = comparison.model_dump(mode="json")["figures"]
    print_metrics(figures, f"{comparison.split} split, {comparison.patches:,} patches")
    for difference in comparison.differences:
        Console().print(comparing.describe_difference(difference), highlight=False, soft_wrap=True)


def submit(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run that was trained on Kaggle's whole archive.")],
    message: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="What Kaggle lists the submission as. By default pcam and the run's name.",
            show_default=False,
        ),
    ] = "",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for the scores.")] = 600,
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Submit a run's predictions to Kaggle, and print the public and the private score."""
    from pcam_model.registry.resolve import find_report

    folder = call_with_cache(lambda cache: find_report(run, resolve_store_uri(store), cache))
    kaggle = import_pipeline("tasks.kaggle.submission", "pcam submit")
    submission = kaggle.submit(folder / "submission.csv", message or f"pcam {run}", timeout=timeout)
    if as_json:
        return print_json(submission.model_dump(mode="json"))
    if not submission.scored:
        print(f"{submission.answer}. It has no score after {timeout:.0f} s; {kaggle.SUBMISSIONS_URL} will have it")
        return
    public = submission.public if submission.public is not None else "not given"
    private = submission.private if submission.private is not None else "not given before the competition is over"
    print(f"{submission.answer}. AUC public {public}, private {private}")
