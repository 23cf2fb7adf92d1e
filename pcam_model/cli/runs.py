"""The commands that list and describe runs: runs, show."""

from typing import Annotated, Any

import typer

from pcam_model.cli.options import JsonOption, StoreOption
from pcam_model.cli.output import print_json, print_metrics
from pcam_model.core.log import log
from pcam_model.core.paths import resolve_store_uri
from pcam_model.core.plain_text import hide_secrets, plain
from pcam_model.core.stage_names import STAGE_NAMES


def runs(store: StoreOption = "", as_json: JsonOption = False) -> None:
    """List the runs of a store: when each was published, and its finished steps."""
    from rich.console import Console
    from rich.table import Table

    from pcam_model.registry.factory import open_store
    from pcam_model.registry.runs import list_runs

    found = list(list_runs(open_store(resolve_store_uri(store))))
    if as_json:
        return print_json([run.model_dump(mode="json") for run in found])
    table = Table("run", "published", "finished steps")
    for run in found:
        state = "damaged" if run.damaged else run.published_at or "no"
        table.add_row(plain(run.name), plain(state), plain(", ".join(run.steps)))
    Console().print(table if found else f"no runs in {hide_secrets(resolve_store_uri(store))}")
    for run in found:
        if run.damaged:
            log.warning("Run %s is damaged: %s", plain(run.name), plain(run.damaged))


def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's name.")],
    store: StoreOption = "",
    as_json: JsonOption = False,
) -> None:
    """Describe a run, also while it is training: steps, progress, checkpoints and figures."""
    from pcam_model.registry.describe import describe_run

    uri = resolve_store_uri(store)
    description = describe_run(uri, run)
    description["training"] = None if description["published_at"] else training_progress(uri, run)
    if as_json:
        return print_json(description)
    print(plain(description["uri"]))
    print(f"published: {description['published_at'] or 'no'}")
    if status := description["status"]:
        print(plain(f"{status['state']} {status['time']}: {status['message']}"))
    print(plain(f"finished steps: {', '.join(description['steps']) or 'none yet'}"))
    if description["training"]:
        print(_training_line(description["training"], description["config"]))
    for checkpoint in description["checkpoints"]:
        print(_checkpoint_line(checkpoint))
    print_metrics(description["figures"])
    if description["split"]:
        print(plain(description["split"]))


def training_progress(store: str, run: str) -> dict[str, Any] | None:
    """Stage, epoch, step and last figures of a run under way, as far as the store has them; None before training."""
    from pcam_model.core.metrics_rows import parse_metrics
    from pcam_model.registry.backends.base import NotFound
    from pcam_model.registry.factory import open_store

    opened = open_store(store)
    for stage in reversed(STAGE_NAMES):
        key = f"runs/{run}/checkpoints/{stage}/metrics.jsonl"
        try:
            rows = parse_metrics(opened.read(key), f"{opened.uri}/{key}")
        except NotFound:
            continue
        if rows:
            return _stage_progress(stage, rows)
    return None


def _stage_progress(stage: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    epochs = [row for row in rows if row["kind"] == "epoch"]
    losses = [row["loss"] for row in rows if row["kind"] == "step"]
    return {
        "stage": stage,
        "epoch": rows[-1]["epoch"],
        "step": rows[-1]["step"],
        "train_loss": losses[-1] if losses else None,
        "last_epoch": epochs[-1] if epochs else None,
    }


def _training_line(training: dict[str, Any], config: dict[str, Any]) -> str:
    stage = config.get(training["stage"])
    epochs = plain(str(stage.get("epochs", "?") if isinstance(stage, dict) else "?"))
    line = f"{training['stage']}: epoch {training['epoch']} of {epochs}, step {training['step']:,}"
    if training["train_loss"] is not None:
        line += f", training loss {training['train_loss']:.4f}"
    if last := training["last_epoch"]:
        figures = (f"{name} {last[name]:.4f}" for name in ("valid_loss", "valid_auc") if name in last)
        line += f"; after epoch {last['epoch']}: {', '.join(figures)}"
    return line


def _checkpoint_line(checkpoint: dict[str, Any]) -> str:
    auc = "" if checkpoint["valid_auc"] is None else f", validation AUC {checkpoint['valid_auc']:.4f}"
    marks = ", best" * checkpoint["best"] + ", final" * checkpoint["final"]
    return f"checkpoint {checkpoint['stage']}/{checkpoint['epoch']}{auc}{marks}"
