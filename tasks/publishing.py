"""Tasks of the registry wing: begin a run, publish it."""

from pathlib import Path

import numpy as np
from prefect import runtime, task

from pcam_model.data.patch_loader import IMAGENET_MEAN, IMAGENET_STD
from pcam_model.data.pack import patches
from pcam_model.core.errors import BadModel
from pcam_model.evaluation.report import Report
from pcam_model.core.files import sha256, write_whole
from pcam_model.core.model_metadata import GRAPH, Model
from pcam_model.core.paths import cache_folder, store_address
from pcam_model.config import TrainPlan
from pcam_model.registry.run_status import forget_ending
from pcam_model.registry.runs import Published, run_name
from pcam_model.registry.workspace import Workspace
from pcam_model.training.checkpoint import Checkpoint
from pcam_model.training.metrics_log import NAME
from pcam_model.training.onnx_export import write_graph
from pcam_model.training.context import Material, network_at
from pcam_model.training.model_io import save_model, versions
from pcam_model.training.network import build_network
from tasks.run_status import made_up
from tasks.policy import within
from tasks.progress import show_link

CHECKED = 64  # patches on which model.onnx is compared with the network


@task(**within(hours=0.5) | {"retries": 1, "retry_delay_seconds": 3})  # who starts a run soon hears what is wrong
def begin(plan: TrainPlan) -> Workspace:
    """Name the run, and find out early what would fail late; nothing is written yet."""
    run = run_name(plan.run or made_up(str(runtime.flow_run.name), str(runtime.flow_run.id)))
    place = Workspace(run=run, store=store_address(plan.store.uri), folder=str(cache_folder() / "work" / run))
    if place.begun():
        claim.fn(place, plan)
    if plan.network.weights != "none":
        build_network(plan.network, plan.seed, say=lambda _: None)
    print(f"Run {run}, kept in {place.store}")
    return place


@task(**within(hours=0.5))
def claim(place: Workspace, plan: TrainPlan) -> None:
    """Write down in the store what was asked, or see that it is what was asked before."""
    place.run_store.claim(plan.result(), versions())
    forget_ending(place.run_store.store, place.run)


@task(**within(hours=6))
def publish(
    place: Workspace, plan: TrainPlan, material: Material, trained: list[Checkpoint | None], report: Report
) -> Published:
    """Lay the model beside the report, then write the manifest, last."""
    last = [checkpoint for checkpoint in trained if checkpoint][-1]

    def make(folder: Path) -> Model:
        model = Model(
            run=place.run,
            architecture=plan.network.name,
            size=plan.network.size,
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            tta=plan.score.tta,
            temperature=report.temperature,
            threshold=report.thresholds.get(report.operating_point, 0.5),
            operating_point=report.operating_point,
            thresholds=report.thresholds,
            stage=last.stage,
            weights=last.digest,
            pack=material.pack.digest,
            archive=material.pack.archive,
            split=material.split.meaning,
            plan=plan.result(),
            versions=versions(),
            graph=_graph(folder, plan, material, last),
        )
        return save_model(folder, last, model)

    place.once("model", Model, make, {"weights": last.digest})
    _all_metrics(place)
    published = place.publish()
    for key, address in (("report", f"{published.uri}/report/report.html"), ("model", f"{published.uri}/model")):
        show_link(key, address, f"The {key} of run {place.run}")
        print(f"{key.capitalize()}: {address}")
    place.forget()
    return published


def _graph(folder: Path, plan: TrainPlan, material: Material, last: Checkpoint) -> str:
    """Write model.onnx, checked on patches of this run; a network that cannot be written so is published without."""
    seen = patches(material.pack)
    try:
        network = network_at(material, last)
        difference = write_graph(folder / GRAPH, network, plan.network.size, np.array(seen[:CHECKED]))
    except BadModel as error:
        print(f"{error}. The model is published without {GRAPH}: `pcam predict --runtime onnx` will refuse it")
        return ""
    print(f"{GRAPH}: logits within {difference:.1e} of the network's on {min(CHECKED, len(seen))} patches of this run")
    return sha256(folder / GRAPH)


def _all_metrics(place: Workspace) -> None:
    diaries = [place.room(f"checkpoints/{stage}") / NAME for stage in ("frozen", "tuned")]
    lines = b"".join(diary.read_bytes() for diary in diaries if diary.is_file())
    write_whole(Path(place.folder) / NAME, lines)
