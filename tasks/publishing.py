"""Tasks of the registry wing: begin a run, publish it."""

from pathlib import Path

import numpy as np
from prefect import runtime, task

from pcam_model.config import TrainConfig
from pcam_model.core.errors import ModelError
from pcam_model.core.files import sha256, write_atomic
from pcam_model.core.model_metadata import GRAPH, Model
from pcam_model.core.paths import cache_dir, resolve_store_uri
from pcam_model.data.pack import patches
from pcam_model.data.patch_loader import IMAGENET_MEAN, IMAGENET_STD
from pcam_model.evaluation.report import Report
from pcam_model.registry.run_status import clear_status
from pcam_model.registry.runs import Published, run_name
from pcam_model.registry.workspace import Workspace
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.context import TrainingContext, load_network
from pcam_model.training.metrics_log import NAME
from pcam_model.training.model_io import save_model, versions
from pcam_model.training.network import build_network
from pcam_model.training.onnx_export import export_onnx
from tasks.policy import retry_policy
from tasks.progress import show_link
from tasks.run_status import default_run_name

CHECKED = 64  # patches on which model.onnx is compared with the network


@task(**retry_policy(hours=0.5) | {"retries": 1, "retry_delay_seconds": 3})  # who starts a run soon hears what is wrong
def begin(config: TrainConfig) -> Workspace:
    """Name the run, and find out early what would fail late; nothing is written yet."""
    run = run_name(config.run or default_run_name(str(runtime.flow_run.name), str(runtime.flow_run.id)))
    workspace = Workspace(run=run, store=resolve_store_uri(config.store.uri), folder=str(cache_dir() / "work" / run))
    if workspace.begun():
        reserve_run.fn(workspace, config)
    if config.model.weights != "none":
        build_network(config.model, config.seed, say=lambda _: None)
    print(f"Run {run}, kept in {workspace.store}")
    return workspace


@task(**retry_policy(hours=0.5))
def reserve_run(workspace: Workspace, config: TrainConfig) -> None:
    """Write down in the store what was asked, or see that it is what was asked before."""
    workspace.run_store.reserve_run(config.result_keys(), versions())
    clear_status(workspace.run_store.store, workspace.run)


@task(**retry_policy(hours=6))
def publish(
    workspace: Workspace,
    config: TrainConfig,
    context: TrainingContext,
    trained: list[Checkpoint | None],
    report: Report,
) -> Published:
    """Lay the model beside the report, then write the manifest, last."""
    last = [checkpoint for checkpoint in trained if checkpoint][-1]

    def make(folder: Path) -> Model:
        model = Model(
            run=workspace.run,
            architecture=config.model.arch,
            size=config.model.image_size,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            tta=config.score.tta,
            temperature=report.temperature,
            threshold=report.thresholds.get(report.operating_point, 0.5),
            operating_point=report.operating_point,
            thresholds=report.thresholds,
            stage=last.stage,
            weights=last.digest,
            pack=context.pack.digest,
            archive=context.pack.archive,
            split=context.split.meaning,
            config=config.result_keys(),
            versions=versions(),
            graph=_graph(folder, config, context, last),
        )
        return save_model(folder, last, model)

    workspace.run_step("model", Model, make, {"weights": last.digest})
    _all_metrics(workspace)
    published = workspace.publish()
    for key, address in (("report", f"{published.uri}/report/report.html"), ("model", f"{published.uri}/model")):
        show_link(key, address, f"The {key} of run {workspace.run}")
        print(f"{key.capitalize()}: {address}")
    workspace.forget()
    return published


def _graph(folder: Path, config: TrainConfig, context: TrainingContext, last: Checkpoint) -> str:
    """Write model.onnx, checked on patches of this run; a network that cannot be written so is published without."""
    seen = patches(context.pack)
    try:
        network = load_network(context, last)
        difference = export_onnx(folder / GRAPH, network, config.model.image_size, np.array(seen[:CHECKED]))
    except ModelError as error:
        print(f"{error}. The model is published without {GRAPH}: `pcam predict --backend onnx` will refuse it")
        return ""
    print(f"{GRAPH}: logits within {difference:.1e} of the network's on {min(CHECKED, len(seen))} patches of this run")
    return sha256(folder / GRAPH)


def _all_metrics(workspace: Workspace) -> None:
    diaries = [workspace.room(f"checkpoints/{stage}") / NAME for stage in ("frozen", "finetune")]
    lines = b"".join(diary.read_bytes() for diary in diaries if diary.is_file())
    write_atomic(Path(workspace.folder) / NAME, lines)
